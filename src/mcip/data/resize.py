"""Resizing an image to the model's square, with bounded memory however thin the image is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, get_args

from PIL import Image

from mcip.core.errors import ConfigError, UnreadableImage

# Pixels that a resized image may have in memory before it is cropped; 4 bytes each. Thinner ones are made in stripes.
_WHOLE_PIXELS: Final = 2**22
# Pixels that each of the two passes of resizing may compute: for a square of 224 pixels, those of 1 x 668.
_MOST_PIXELS: Final = 2**25
# Sides of a resized image before it is cropped: Pillow takes about 50 bytes for each of their pixels.
_MOST_SIDE: Final = 2**22
# The paper resizes to this many times the crop's side.
MARGIN: Final = 1.125
# open_clip takes "random" for bicubic outside of training.
_INTERPOLATIONS: Final = ("bicubic", "bilinear", "random")


ResizeMode = Literal["shortest", "longest", "squash"]


class ResizeConfig(Protocol):
    """What open_clip's `PreprocessCfg` says of resizing."""

    size: Any
    interpolation: str
    resize_mode: str
    fill_color: int


@dataclass(frozen=True)
class Squash:
    """Resizes an image to side x side pixels, whatever its aspect ratio; bicubic."""

    side: int
    fill: ClassVar[int] = 0
    resample: ClassVar[Image.Resampling] = Image.Resampling.BICUBIC

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of what an image is resized to."""
        check_resizing((width, height), (self.side, self.side), self.side)
        return self.side, self.side

    def __call__(self, image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
        """Resize an RGB image; `size` is that of the whole image, where this one is reduced.

        Raises:
            UnreadableImage: It is too thin.
        """
        return image.resize(self.resized_size(*(size or image.size)), self.resample)


@dataclass
class ModelResize:
    """Resizes, and crops or pads, an image to a square as open_clip's evaluation transform does, to the last bit.

    Only Pillow is needed: this is how images are prepared where PyTorch is not imported, too.

    Attributes:
        preprocess: The model's configuration.
        side: Of the square, in pixels.
    """

    preprocess: ResizeConfig
    side: int = field(init=False)
    _mode: str = field(init=False)

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ConfigError: Its images are not square, or its mode or interpolation is unknown.
        """
        self.side = _square(self.preprocess.size)
        self._mode = self.preprocess.resize_mode or "shortest"
        if self._mode not in get_args(ResizeMode):
            raise ConfigError(
                f"cannot use preprocess_cfg: resize_mode is {self._mode!r}, not {_either(get_args(ResizeMode))}."
            )
        if (self.preprocess.interpolation or "bicubic") not in _INTERPOLATIONS:
            raise ConfigError(
                f"cannot use preprocess_cfg: interpolation is {self.preprocess.interpolation!r}, "
                f"not {_either(_INTERPOLATIONS)}."
            )

    def __call__(self, image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
        """Resize and crop an RGB image; `size` is that of the whole image, where this one is reduced.

        Raises:
            UnreadableImage: It is too thin.
        """
        resized = self.resized_size(*(size or image.size))
        enlarged = min(image.size) < self.side
        if self._mode == "shortest" and enlarged and max(resized) * self.side > _WHOLE_PIXELS:
            return self._center_in_stripes(image, resized)
        square = image.resize(resized, self.resample)
        return square if square.size == (self.side, self.side) else self._cropped_or_padded(square)

    @property
    def resample(self) -> Image.Resampling:
        """The filter."""
        bilinear = self.preprocess.interpolation == "bilinear"
        return Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC

    @property
    def fill(self) -> int:
        """The grey around images that do not fill the square, 0 to 255."""
        return self.preprocess.fill_color if self._mode == "longest" else 0

    def _cropped_or_padded(self, image: Image.Image) -> Image.Image:
        """The center of an image, with the configuration's color around it where it is smaller than the square."""
        square = Image.new("RGB", (self.side, self.side), (self.fill,) * 3)
        square.paste(image, (offset(image.width, self.side), offset(image.height, self.side)))
        return square

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing, before the square is cut out or padded.

        Raises:
            UnreadableImage: An image of this size is too thin.
        """
        resized = self._resized_size(width, height)
        check_resizing((width, height), resized, self.side)
        return resized

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        if self._mode == "squash":
            return self.side, self.side
        if self._mode == "longest":
            ratio = max(width, height) / self.side
            return round(width / ratio), round(height / ratio)
        if width <= height:
            return self.side, int(self.side * height / width)
        return int(self.side * width / height), self.side

    def _center_in_stripes(self, image: Image.Image, resized: tuple[int, int]) -> Image.Image:
        """The center of an enlarged image, without making the rest of it all at once.

        Pillow enlarges along rows first, then along columns, and rounds to 8 bits in between. No row depends on another
        one in the first pass, nor a column in the second: so both can be done in parts, and cropped at once.
        """
        resample = self.resample
        (wide, high), side, height = resized, self.side, image.height
        left, top = -offset(wide, side), -offset(high, side)
        rows = Image.new("RGB", (side, height))
        step = max(1, _WHOLE_PIXELS // wide)
        for y in range(0, height, step):
            part = image.crop((0, y, image.width, min(y + step, height)))
            rows.paste(part.resize((wide, part.height), resample).crop((left, 0, left + side, part.height)), (0, y))
        square = Image.new("RGB", (side, side))
        step = max(1, _WHOLE_PIXELS // high)
        for x in range(0, side, step):
            part = rows.crop((x, 0, min(x + step, side), height))
            square.paste(part.resize((part.width, high), resample).crop((0, top, part.width, top + side)), (x, 0))
        return square


Resize: TypeAlias = Squash | ModelResize


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def offset(length: int, side: int) -> int:
    """Where an image of `length` pixels begins in a square of `side`: as torchvision's center_crop rounds it."""
    return -round((length - side) / 2) if length > side else (side - length) // 2


def check_resizing(size: tuple[int, int], resized: tuple[int, int], side: int) -> None:
    """Refuse an image for which resizing, then cropping to `side`, would make too much, or nothing."""
    (width, height), (wide, high) = size, resized
    # What is not larger than the image itself needs no limit.
    most_pixels, most_side = max(_MOST_PIXELS, width * height), max(_MOST_SIDE, *size)
    if min(resized) < 1 or max(resized) > most_side or max(wide * height, side * high) > most_pixels:
        raise UnreadableImage(
            f"too thin: {width} x {height} pixels would be {wide} x {high} before a square of {side} is cut out"
        )


def _square(size: int | tuple[int, ...]) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ConfigError(f"images must be square, but preprocess_cfg says size {size}")
    return int(sides.pop())
