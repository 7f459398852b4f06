"""Phrases that people search pictures by, for measuring text queries where a table has no captions."""

from __future__ import annotations

_PLACES = (
    "a beach at sunset", "a snowy mountain", "a city street at night", "a forest in autumn", "a kitchen", "an office",
    "a harbour with boats", "a desert road", "a waterfall", "a garden full of flowers", "a football stadium",
    "an old church", "a library", "a train station", "a market with fruit", "a bridge over a river", "a cornfield",
    "a living room with a sofa", "a playground", "an empty parking lot",
)  # fmt: skip
_THINGS = (
    "a red mug", "a wooden chair", "a pair of running shoes", "a black handbag", "a wrist watch", "a bicycle",
    "a sports car", "an acoustic guitar", "a laptop", "a bowl of soup", "a chocolate cake", "a striped shirt",
    "a blue dress", "sunglasses", "a teddy bear", "a stack of books", "a bottle of wine", "a lamp", "an umbrella",
    "a yellow bus", "a sailing boat", "a clock", "a pizza", "a glass of orange juice", "a leather jacket",
)  # fmt: skip
_BEINGS = (
    "a dog", "a cat", "a horse", "a bird on a branch", "a butterfly", "an elephant", "a man with a beard",
    "a woman with long hair", "a child laughing", "a group of friends", "a football player", "a fish", "a cow",
    "a sheep", "an owl", "a bear", "a couple dancing", "a cyclist", "a musician on stage", "a chef",
)  # fmt: skip
_DEEDS = ("running", "sleeping", "jumping", "looking at the camera", "in the water", "in the grass", "seen from behind")
_STYLES = (
    "black and white photo", "aerial view", "close-up of a face", "abstract pattern", "watercolour painting",
    "blurry picture", "text on a sign", "a map", "a chart with numbers", "fireworks", "reflection in water",
    "a pattern of tiles", "minimal white background", "a pencil drawing", "silhouette against the light",
)  # fmt: skip


def phrases() -> list[str]:
    """About 300 phrases; always the same, in an order in which every part of them has all kinds."""
    found = [*_PLACES, *_THINGS, *_BEINGS, *_STYLES]
    found += [f"{being} {deed}" for number, being in enumerate(_BEINGS) for deed in _DEEDS[number % 2 :: 2]]
    found += [f"{thing} on a table" for thing in _THINGS[::2]]
    found += [f"{thing} in {place}" for thing, place in zip(_THINGS * 2, _PLACES * 3, strict=False)]
    found += [f"{being} in {place}" for being, place in zip(_BEINGS * 3, _PLACES[3:] * 4, strict=False)]
    # Steps of a number that is prime to the length visit every phrase once.
    count = len(found)
    return [found[at * 101 % count] for at in range(count)]
