"""Draw a Toyshop product: a shape with its pattern and emblem, in a scene, under a pose, a light and a blur."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.toyshop.world import SCENES, Product, Rgb

# Float arrays; the coordinates are float32, and what NumPy makes of them need not be.
Field: TypeAlias = NDArray[np.floating[Any]]
Mask: TypeAlias = NDArray[np.bool_]
Pixels: TypeAlias = NDArray[np.uint8]

SIZE = 64
_OVERSAMPLE = 2


@dataclass(frozen=True)
class View:
    """How one image shows a product.

    Attributes:
        scene: One of `mcip.toyshop.world.SCENES`.
        rotation: In-plane rotation in radians.
        scale: Half extent of the product, as a share of half the image.
        shift: Offset of the product's center, in shares of half the image.
        gain: Brightness factor of the light.
        slope: Brightness change of the light over the image, along x and y.
        tint: Factor on each of the three colour channels.
        blur: Standard deviation of the blur in output pixels.
        occluder: Center x, center y, half extent of something in front, or None.
        seed: Seeds the scene's texture, the occluder's colour and the sensor noise.
    """

    scene: str
    rotation: float
    scale: float
    shift: tuple[float, float]
    gain: float
    slope: tuple[float, float]
    tint: Rgb
    blur: float
    occluder: tuple[float, float, float] | None
    seed: int


def sample_view(rng: np.random.Generator) -> View:
    """Draw a view; the same state of `rng` gives the same view."""
    side = rng.uniform(0, 2 * math.pi)
    occluder = (float(math.cos(side)), float(math.sin(side)), float(rng.uniform(0.25, 0.6)))
    return View(
        scene=str(rng.choice(SCENES)),
        rotation=float(rng.uniform(-0.45, 0.45)),
        scale=float(rng.uniform(0.5, 0.85)),
        shift=(float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.2, 0.2))),
        gain=float(rng.uniform(0.7, 1.2)),
        slope=(float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.25, 0.25))),
        tint=(float(rng.uniform(0.9, 1.1)), float(rng.uniform(0.92, 1.08)), float(rng.uniform(0.9, 1.1))),
        blur=float(max(0.0, rng.uniform(-0.6, 1.0))),
        occluder=occluder if rng.random() < 0.5 else None,
        seed=int(rng.integers(2**31)),
    )


def render(product: Product, view: View, size: int = SIZE) -> Pixels:
    """Draw `product` as `view` shows it.

    Returns:
        uint8 array of shape (size, size, 3). The same arguments give the same array.
    """
    rng = np.random.default_rng(view.seed)
    n = size * _OVERSAMPLE
    axis = (np.arange(n, dtype=np.float32) + 0.5) * (2.0 / n) - 1.0
    y, x = np.meshgrid(axis, axis, indexing="ij")
    image = _SCENES[view.scene](x, y, rng)

    cos, sin = math.cos(view.rotation), math.sin(view.rotation)
    dx, dy = (x - view.shift[0]) / view.scale, (y - view.shift[1]) / view.scale
    stretch = math.sqrt(product.aspect)
    u, v = (cos * dx + sin * dy) / stretch, (cos * dy - sin * dx) * stretch
    inside = SHAPE_FIELDS[product.shape](u, v) <= 0
    shadow = np.roll(inside, (n // 24, n // 32), axis=(0, 1)) & ~inside
    image[shadow] *= 0.6

    body = np.array(product.body_rgb, np.float32)
    on_pattern = _pattern(product, u, v) & inside
    image[inside] = body
    image[on_pattern] = np.array(product.pattern_rgb, np.float32)
    eu = (u - product.emblem_at[0]) / product.emblem_size
    ev = (v - product.emblem_at[1]) / product.emblem_size
    image[(_EMBLEMS[product.emblem](eu, ev) <= 0) & inside] = np.array(product.emblem_rgb, np.float32)

    if view.occluder is not None:
        ox, oy, extent = view.occluder
        image[np.hypot(x - ox, y - oy) < extent] = rng.uniform(0.1, 0.9, 3).astype(np.float32)

    image = image.reshape(size, _OVERSAMPLE, size, _OVERSAMPLE, 3).mean(axis=(1, 3))
    light = view.gain * (1.0 + view.slope[0] * axis[::2] + view.slope[1] * axis[::2, None])
    image *= light[:, :, None] * np.array(view.tint, np.float32)
    image = _blur(image, view.blur)
    image += rng.normal(0.0, 0.02, image.shape).astype(np.float32)
    return np.asarray(np.clip(image * 255.0 + 0.5, 0, 255), np.uint8)


def _polar(u: Field, v: Field) -> tuple[Field, Field]:
    return np.hypot(u, v), np.arctan2(u, -v)


def _box(u: Field, v: Field, half_width: float, half_height: float) -> Field:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _star(u: Field, v: Field) -> Field:
    r, theta = _polar(u, v)
    ramp = np.abs(((theta * (5 / (2 * math.pi))) % 1.0) * 2.0 - 1.0)
    field: Field = r - (0.36 + 0.58 * ramp**1.5)
    return field


def _gear(u: Field, v: Field) -> Field:
    r, theta = _polar(u, v)
    field: Field = np.maximum(r - np.where(np.cos(8 * theta) > 0, 0.85, 0.64), 0.22 - r)
    return field


def _heart(u: Field, v: Field) -> Field:
    a, b = u * 1.25, -(v - 0.08) * 1.25
    field: Field = (a * a + b * b - 0.6) ** 3 - a * a * b**3
    return field


def _mug(u: Field, v: Field) -> Field:
    body = _box(u + 0.15, v, 0.5, 0.7)
    handle = np.abs(np.hypot(u - 0.42, v) - 0.32) - 0.1
    field: Field = np.minimum(body, handle)
    return field


def _mushroom(u: Field, v: Field) -> Field:
    cap = np.maximum(np.hypot(u, (v - 0.05) * 0.95) - 0.82, v - 0.05)
    field: Field = np.minimum(cap, _box(u, v - 0.4, 0.24, 0.42))
    return field


# Signed fields over the product's coordinates (u to the right, v downwards): negative inside.
SHAPE_FIELDS: dict[str, Callable[[Field, Field], Field]] = {
    "ball": lambda u, v: np.hypot(u, v) - 0.78,
    "block": lambda u, v: _box(u, v, 0.7, 0.7),
    "pyramid": lambda u, v: np.maximum(v - 0.68, 1.9 * np.abs(u) - v - 0.88),
    "star": _star,
    "heart": _heart,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.56) - 0.27,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.3, 0.85), _box(u, v, 0.85, 0.3)),
    "moon": lambda u, v: np.maximum(np.hypot(u, v) - 0.85, 0.62 - np.hypot(u - 0.45, v + 0.1)),
    "drop": lambda u, v: np.minimum(np.hypot(u, v - 0.25) - 0.58, np.maximum(v - 0.05, 1.9 * np.abs(u) - (v + 0.95))),
    "house": lambda u, v: np.minimum(_box(u, v - 0.35, 0.55, 0.45), np.maximum(v + 0.1, np.abs(u) - (v + 0.9))),
    "bottle": lambda u, v: np.minimum(_box(u, v - 0.25, 0.42, 0.6), _box(u, v + 0.55, 0.17, 0.35)),
    "mug": _mug,
    "fish": lambda u, v: np.minimum(
        np.hypot((u + 0.15) / 0.7, v / 0.48) - 1.0,
        np.maximum(u - 0.9, np.maximum(0.4 - u, np.abs(v) - (u - 0.3))),
    ),
    "kite": lambda u, v: np.abs(u) / 0.62 + np.abs(v) / 0.92 - 1.0,
    "mushroom": _mushroom,
    "gear": _gear,
}

_EMBLEMS: dict[str, Callable[[Field, Field], Field]] = {
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "triangle": lambda u, v: np.maximum(v - 0.7, 1.9 * np.abs(u) - v - 0.95),
    "plus": lambda u, v: np.minimum(_box(u, v, 0.3, 1.0), _box(u, v, 1.0, 0.3)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.28,
    "bar": lambda u, v: _box(u, v, 1.2, 0.35),
    "diamond": lambda u, v: np.abs(u) + np.abs(v) - 1.1,
    "dots": lambda u, v: np.hypot(np.abs(u) - 0.65, v) - 0.48,
}


def _pattern(product: Product, u: Field, v: Field) -> Mask:
    if product.pattern == "plain":
        return np.zeros(u.shape, bool)
    cos, sin = math.cos(product.angle), math.sin(product.angle)
    turn = 2 * math.pi * product.frequency / 2
    a, b = (cos * u + sin * v) * turn + product.phase, (cos * v - sin * u) * turn
    level: Field
    if product.pattern == "striped":
        level = np.sin(a) - 0.1
    elif product.pattern == "checked":
        level = np.sin(a) * np.sin(b + product.phase)
    elif product.pattern == "dotted":
        level = np.sin(a) * np.sin(b + product.phase) - 0.45
    elif product.pattern == "zigzag":
        level = np.sin(a + 3.2 * np.abs((b / math.pi) % 2.0 - 1.0)) - 0.1
    else:
        level = np.sin(np.hypot(u - 0.3 * cos, v - 0.3 * sin) * turn * 1.3 + product.phase) - 0.1
    return np.asarray(level > 0)


def _texture(rng: np.random.Generator, n: int, cells: int) -> Field:
    """Smooth noise of shape (n, n) in about [-1, 1]: a coarse random grid, stretched."""
    grid: Field = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells - 1e-3, n, dtype=np.float32)
    low = at.astype(np.int64)
    part = at - low
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    texture: Field = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return texture


def _shade(base: tuple[float, float, float], rng: np.random.Generator, level: Field) -> Field:
    colour = np.array(base, np.float32) * rng.uniform(0.85, 1.12)
    return (level[:, :, None] * colour).astype(np.float32)


def _grain(x: Field, rng: np.random.Generator, cells: int, depth: float) -> Field:
    return 1.0 + depth * _texture(rng, x.shape[0], cells)


def _wood(x: Field, y: Field, rng: np.random.Generator) -> Field:
    lines = np.sin(y * rng.uniform(14, 22) + 2.0 * _texture(rng, x.shape[0], 5) + rng.uniform(0, 6))
    return _shade((0.62, 0.42, 0.24), rng, 1.0 + 0.16 * lines)


def _brick(x: Field, y: Field, rng: np.random.Generator) -> Field:
    row = np.floor(y * 4 + rng.uniform(0, 1))
    mortar = ((y * 4 + 8) % 1.0 < 0.14) | ((x * 2.5 + 0.5 * (row % 2) + 8) % 1.0 < 0.09)
    return _shade((0.62, 0.27, 0.2), rng, np.where(mortar, 1.45, _grain(x, rng, 12, 0.15)).astype(np.float32))


def _cloth(x: Field, y: Field, rng: np.random.Generator) -> Field:
    turn = rng.uniform(6, 9)
    level = 0.5 * (np.sin(x * turn + rng.uniform(0, 6)) > 0) + 0.5 * (np.sin(y * turn) > 0)
    white = np.array((0.92, 0.9, 0.88), np.float32)
    return np.asarray(white - level[:, :, None] * np.array((0.1, 0.45, 0.42), np.float32), np.float32)


def _night(x: Field, y: Field, rng: np.random.Generator) -> Field:
    image = _shade((0.07, 0.08, 0.2), rng, _grain(x, rng, 4, 0.4))
    stars = rng.integers(0, x.shape[0] // 2, (2, 30)) * 2
    for di in (0, 1):
        image[stars[0] + di, stars[1]] = image[stars[0] + di, stars[1] + 1] = 0.85
    return image


def _sky(x: Field, y: Field, rng: np.random.Generator) -> Field:
    clouds = np.clip(_texture(rng, x.shape[0], 4) * 1.5 - 0.1, 0, 1)[:, :, None]
    return np.asarray(_shade((0.42, 0.66, 0.92), rng, 1.0 - 0.12 * y) * (1 - clouds) + 0.97 * clouds, np.float32)


_SCENES: dict[str, Callable[[Field, Field, np.random.Generator], Field]] = {
    "wood": _wood,
    "grass": lambda x, y, rng: _shade((0.28, 0.52, 0.18), rng, _grain(x, rng, 32, 0.5)),
    "snow": lambda x, y, rng: _shade((0.9, 0.93, 0.97), rng, _grain(x, rng, 6, 0.07)),
    "sand": lambda x, y, rng: _shade((0.85, 0.74, 0.5), rng, _grain(x, rng, 40, 0.12)),
    "night": _night,
    "sky": _sky,
    "brick": _brick,
    "cloth": _cloth,
}


def _blur(image: Field, sigma: float) -> Field:
    if sigma < 0.2:
        return image
    offsets = np.arange(-2, 3, dtype=np.float32)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(2, 2) if a == axis else (0, 0) for a in range(3)], mode="edge")
        length = image.shape[axis]
        shifted = [k * np.take(padded, np.arange(i, i + length), axis=axis) for i, k in enumerate(kernel)]
        image = np.sum(shifted, axis=0)
    return image
