"""Probe texts, by which text queries are calibrated: captions of the table, or general texts where it has none."""

from __future__ import annotations

import numpy as np

from mcip.retrieval.ann.calibrate import QUERIES
from mcip.retrieval.table import IndexTable

_PLACES = (
    "a beach at sunset", "a snowy mountain", "a city street at night", "a forest in autumn", "a kitchen", "an office",
    "a harbour with boats", "a desert road", "a waterfall", "a garden full of flowers", "a football stadium",
    "an old church", "a library", "a train station", "a market with fruit", "a bridge over a river", "a cornfield",
    "a living room with a sofa", "a playground", "an empty parking lot",
)  # fmt: skip
_SUBJECTS = (
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
_ACTIONS = (
    "running",
    "sleeping",
    "jumping",
    "looking at the camera",
    "in the water",
    "in the grass",
    "seen from behind",
)
_STYLES = (
    "black and white photo", "aerial view", "close-up of a face", "abstract pattern", "watercolour painting",
    "blurry picture", "text on a sign", "a map", "a chart with numbers", "fireworks", "reflection in water",
    "a pattern of tiles", "minimal white background", "a pencil drawing", "silhouette against the light",
)  # fmt: skip


def default_texts() -> list[str]:
    """About 300 texts that people search images by; always the same, any stretch of them a mixture of all kinds."""
    texts = [*_PLACES, *_SUBJECTS, *_BEINGS, *_STYLES]
    texts += [f"{being} {action}" for number, being in enumerate(_BEINGS) for action in _ACTIONS[number % 2 :: 2]]
    texts += [f"{subject} on a table" for subject in _SUBJECTS[::2]]
    texts += [f"{subject} in {place}" for subject, place in zip(_SUBJECTS * 2, _PLACES * 3, strict=False)]
    texts += [f"{being} in {place}" for being, place in zip(_BEINGS * 3, _PLACES[3:] * 4, strict=False)]
    # Steps of a number that is prime to the length visit every text once.
    count = len(texts)
    return [texts[at * 101 % count] for at in range(count)]


def probe_texts(table: IndexTable, count: int = QUERIES) -> list[str]:
    """Captions spread over the rows of a table, at most `count`; general texts where it has none."""
    return _captions(table, count) or default_texts()


def _captions(table: IndexTable, count: int) -> list[str]:
    name = next((name for name in ("captions", "caption") if name in table.metadata), None)
    if name is None:
        return []
    row_ids = np.sort(table.read([])["_rowid"].to_numpy().astype(np.int64))
    if len(row_ids) == 0:
        return []
    spread = row_ids[np.linspace(0, len(row_ids) - 1, min(len(row_ids), 4 * count)).astype(np.int64)]
    unique: dict[str, None] = {}
    for value in table.take(np.unique(spread), [name])[name].to_pylist():
        first = value if isinstance(value, str) else next(iter(value or []), None)
        if first:
            unique[str(first)] = None
    captions = list(unique)
    return captions[:: max(1, len(captions) // count)][:count]
