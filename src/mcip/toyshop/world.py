"""The products of Toyshop: what a product is, and what of it a caption may say.

A product has named attributes (shape, two colours, pattern), which captions mention, and fine detail (its own hues, the
frequency, angle and phase of its pattern, an emblem, an aspect), which no caption ever mentions. Many products that
look different therefore share their captions: the semantic-visual gap that fine-tuning for retrieval has to close.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Rgb: TypeAlias = tuple[float, float, float]

# name -> (hue, saturation, value), each in [0, 1]
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.0, 0.85, 0.85),
    "orange": (0.075, 0.9, 0.95),
    "yellow": (0.15, 0.85, 0.95),
    "green": (0.35, 0.75, 0.65),
    "teal": (0.49, 0.75, 0.7),
    "blue": (0.61, 0.8, 0.8),
    "purple": (0.76, 0.6, 0.65),
    "pink": (0.92, 0.45, 0.95),
    "brown": (0.07, 0.65, 0.42),
    "grey": (0.6, 0.04, 0.6),
}
SHAPES: tuple[str, ...] = (
    "ball", "block", "pyramid", "star", "heart", "ring", "cross", "moon",
    "drop", "house", "bottle", "mug", "fish", "kite", "mushroom", "gear",
)  # fmt: skip
PATTERNS: tuple[str, ...] = ("plain", "striped", "checked", "dotted", "zigzag", "ringed")
SCENES: tuple[str, ...] = ("wood", "grass", "snow", "sand", "night", "sky", "brick", "cloth")
EMBLEMS: tuple[str, ...] = ("disc", "square", "triangle", "plus", "ring", "bar", "diamond", "dots")


@dataclass(frozen=True)
class Product:
    """One product: the attributes captions name, then the fine detail they never name.

    Attributes:
        shape: One of `SHAPES`.
        colours: Two different names out of `COLOURS`: the body's and the pattern's.
        pattern: One of `PATTERNS`.
        body_rgb: The body's own colour, in [0, 1].
        pattern_rgb: The pattern's own colour, in [0, 1].
        frequency: Pattern periods over the unit length.
        angle: Pattern angle in radians.
        phase: Pattern phase in radians.
        aspect: Width over height.
        emblem: One of `EMBLEMS`.
        emblem_rgb: The emblem's colour, in [0, 1].
        emblem_at: The emblem's center in the product's coordinates.
        emblem_size: The emblem's half extent in the product's coordinates.
    """

    shape: str
    colours: tuple[str, str]
    pattern: str
    body_rgb: Rgb
    pattern_rgb: Rgb
    frequency: float
    angle: float
    phase: float
    aspect: float
    emblem: str
    emblem_rgb: Rgb
    emblem_at: tuple[float, float]
    emblem_size: float


def sample_product(rng: np.random.Generator) -> Product:
    """Draw a product; the same state of `rng` gives the same product."""
    first, second = rng.choice(list(COLOURS), size=2, replace=False).tolist()
    return Product(
        shape=str(rng.choice(SHAPES)),
        colours=(first, second),
        pattern=str(rng.choice(PATTERNS)),
        body_rgb=_own_shade(first, rng),
        pattern_rgb=_own_shade(second, rng),
        frequency=float(rng.uniform(1.4, 3.6)),
        angle=float(rng.uniform(0, math.pi)),
        phase=float(rng.uniform(0, 2 * math.pi)),
        aspect=float(np.exp(rng.uniform(-0.3, 0.3))),
        emblem=str(rng.choice(EMBLEMS)),
        emblem_rgb=colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.5, 1.0), rng.uniform(0.15, 1.0)),
        emblem_at=(float(rng.uniform(-0.35, 0.35)), float(rng.uniform(-0.3, 0.4))),
        emblem_size=float(rng.uniform(0.17, 0.3)),
    )


def _own_shade(colour: str, rng: np.random.Generator) -> Rgb:
    hue, saturation, value = COLOURS[colour]
    hue = (hue + rng.uniform(-0.025, 0.025)) % 1.0
    if colour != "grey":
        saturation = float(np.clip(saturation + rng.uniform(-0.15, 0.12), 0.0, 1.0))
    value = float(np.clip(value + rng.uniform(-0.13, 0.1), 0.0, 1.0))
    return colorsys.hsv_to_rgb(hue, saturation, value)
