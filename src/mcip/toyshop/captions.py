"""Captions of a Toyshop image: shape, colours, pattern and scene, with synonyms and gaps.

The fine detail of a product is never named.
"""

from __future__ import annotations

import numpy as np

from mcip.toyshop.world import Product

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "sphere", "orb"),
    "block": ("block", "cube", "box"),
    "pyramid": ("pyramid", "triangle"),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
    "moon": ("moon", "crescent"),
    "drop": ("drop", "droplet"),
    "house": ("house", "cottage"),
    "bottle": ("bottle", "flask"),
    "mug": ("mug", "cup"),
    "fish": ("fish",),
    "kite": ("kite", "diamond"),
    "mushroom": ("mushroom", "toadstool"),
    "gear": ("gear", "cog"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "navy"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "brown": ("brown", "chestnut"),
    "grey": ("grey", "silver"),
}
PATTERN_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "solid"),
    "striped": ("striped",),
    "checked": ("checked", "chequered"),
    "dotted": ("dotted", "spotted"),
    "zigzag": ("zigzag", "wavy"),
    "ringed": ("ringed", "circled"),
}
PATTERN_NOUNS: dict[str, tuple[str, ...]] = {
    "striped": ("stripes", "bands"),
    "checked": ("checks", "squares"),
    "dotted": ("dots", "spots"),
    "zigzag": ("zigzags", "waves"),
    "ringed": ("rings", "circles"),
}
SCENE_WORDS: dict[str, tuple[str, ...]] = {
    "wood": ("on wood", "on a wooden table", "on the floorboards"),
    "grass": ("on grass", "on the lawn", "in the meadow"),
    "snow": ("in the snow", "on snow"),
    "sand": ("on sand", "on the beach"),
    "night": ("at night", "in the dark"),
    "sky": ("in the sky", "under a blue sky"),
    "brick": ("by a brick wall", "against bricks"),
    "cloth": ("on a tablecloth", "on checked cloth"),
}
OPENINGS: tuple[str, ...] = ("", "", "a photo of ", "a picture of ", "this is ", "there is ")
UNNAMED: tuple[str, ...] = ("toy", "thing", "object")


def sample_caption(product: Product, scene: str, rng: np.random.Generator) -> str:
    """Draw one caption of an image of `product` in `scene`: "a red mug with dots on wood"."""

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    def says(share: float) -> bool:
        return bool(rng.random() < share)

    noun = pick(SHAPE_WORDS[product.shape]) if says(0.92) else pick(UNNAMED)
    body, second = (pick(COLOUR_WORDS[name]) for name in product.colours)
    words = [body] if says(0.85) else []
    tail = ""
    if says(0.7):
        if product.pattern != "plain" and says(0.65):
            tail = f" with {second + ' ' if says(0.75) else ''}{pick(PATTERN_NOUNS[product.pattern])}"
        else:
            words.insert(int(rng.integers(len(words) + 1)), pick(PATTERN_ADJECTIVES[product.pattern]))
    if says(0.75):
        tail += f" {pick(SCENE_WORDS[scene])}"
    phrase = " ".join([*words, noun])
    article = "an" if phrase[0] in "aeiou" else "a"
    return f"{pick(OPENINGS)}{article} {phrase}{tail}"


def every_phrase() -> list[str]:
    """Phrases that contain every word a caption can have."""
    tables = (SHAPE_WORDS, COLOUR_WORDS, PATTERN_ADJECTIVES, PATTERN_NOUNS, SCENE_WORDS)
    phrases = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    return [*phrases, *(opening for opening in OPENINGS if opening), *UNNAMED, "a", "an", "with"]
