"""Image transforms in two halves: resizing one image, which can be cached, and the rest on a batch, on any device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tvf

from mcip.core.choices import Decode, TransformName, check_choice
from mcip.core.errors import ConfigError
from mcip.data.fast_resize import resize_fast
from mcip.data.images import decode, decode_reduced, to_rgb
from mcip.data.resize import MARGIN, ModelResize, Resize, Squash

# Brightness, contrast and saturation factors are drawn from [1 - JITTER, 1 + JITTER] (the paper's ColorJitter).
JITTER: Final = 0.4
# ITU-R 601-2 luma weights, as torchvision's rgb_to_grayscale uses them.
_LUMA: Final = (0.2989, 0.587, 0.114)
# Uniform numbers drawn for each image in training: top, left, flip, brightness, contrast, saturation.
_DRAWS: Final = 6
_CACHED_VALUES: Final = 2**18


class ImageTransform:
    """What happens to an image before the model sees it, split so that the costly half can be kept.

    `prepare` resizes one image; its uint8 result can be cached. `finish` crops, augments and normalises a batch of
    prepared images on their device. Make one with `image_transform`.

    Attributes:
        name: "model" for the model's own transform, "paper" for the one of the paper.
        train: Whether `finish` augments.
        decode: How `read` makes pixels of a file: as `prepare`, or faster.
        size: Side S of the square the model takes, in pixels.
        prepared_size: Side P of what `prepare` returns: S, or round(1.125 S) for "paper".
        mean, std: Normalisation of the three channels, of values in [0, 1].
    """

    def __init__(
        self, preprocess: PreprocessCfg, name: TransformName = "model", train: bool = False, decode: Decode = "exact"
    ) -> None:
        self.name: TransformName = name
        self.train = train
        self.decode: Decode = decode
        model_resize = ModelResize(preprocess)
        self.size = model_resize.side
        self.prepared_size = self.size if name == "model" else round(MARGIN * self.size)
        self.mean = _three(preprocess.mean)
        self.std = _three(preprocess.std)
        self.preprocess = preprocess
        self._resize: Resize = model_resize if name == "model" else Squash(self.prepared_size)

    def prepare(self, image: Image.Image) -> Tensor:
        """Resize one image to uint8 (3, P, P).

        Args:
            image: Of any mode and orientation: what `mcip.data.to_rgb` makes of it is resized.

        Raises:
            UnreadableImage: It cannot be decoded, or is too thin for resizing.
        """
        pixels: Tensor = tvf.pil_to_tensor(self._resize(to_rgb(image)))
        return pixels

    def read(self, source: bytes | str | Path) -> tuple[Tensor, tuple[int, int]]:
        """Decode and resize an image file: with `decode` "exact", what `prepare` makes of it.

        "fast" decodes a JPEG at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that is not smaller than P, and
        resizes with PyTorch's filter instead of Pillow's. Orientation, colors and what is refused are the same.

        Args:
            source: The file's bytes, or its path.

        Returns:
            uint8 (3, P, P), and the image's width and height.

        Raises:
            UnreadableImage: See `mcip.data.images.decode` and `prepare`.
        """
        if self.decode == "fast":
            pixels, size = decode_reduced(source, self.prepared_size)
            return resize_fast(pixels, self._resize, size), size
        image = decode(source)
        return self.prepare(image), image.size

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """The random numbers of `finish` in training, a row per image; None where it needs none.

        Several processes draw for all images of a batch, and pass the rows of their own.
        """
        return torch.rand(count, _DRAWS, generator=generator) if self.train else None

    def finish(self, pixels: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Tensor:
        """Crop, augment in training, and normalise a batch.

        Args:
            pixels: uint8 (B, 3, P, P), on any device.
            generator: CPU generator of the random numbers in training; the default generator if none is given. Equal
                states give equal results. Evaluation draws nothing.
            draws: What `draw` gave for these images, if it has been called already.

        Returns:
            float32 (B, 3, S, S), normalised, on the same device.

        Raises:
            ConfigError: `pixels` was not made by `prepare`.
        """
        side = self.prepared_size
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, side, side):
            raise ConfigError(
                f"finish() takes uint8 pixels of shape (B, 3, {side}, {side}) as prepare() makes them, "
                f"not {pixels.dtype} of shape {tuple(pixels.shape)}"
            )
        draws = self.draw(len(pixels), generator) if draws is None else draws
        if self.name == "model":
            if draws is not None:
                pixels = _flip(pixels, draws[:, 2] < 0.5)
            return self._normalise(pixels)
        margin = side - self.size
        if draws is None:
            return self._normalise(tvf.center_crop(pixels, [self.size, self.size]))
        corners = (draws[:, :2] * (margin + 1)).long().clamp_(max=margin)
        flip = draws[:, 2] < 0.5
        factors = 1 + JITTER * (2 * draws[:, 3:] - 1)
        result = torch.empty(len(pixels), 3, self.size, self.size, device=pixels.device)
        # On a CPU a few images at a time, so that they stay in its cache from the crop to the clamp.
        step = max(1, _CACHED_VALUES // (3 * self.size**2)) if pixels.device.type == "cpu" else len(pixels)
        for start in range(0, len(pixels), max(1, step)):
            part = slice(start, start + step)
            cropped = _crop_and_flip(pixels[part], corners[part], flip[part], self.size)
            jitter_and_normalise(cropped, factors[part], self.mean, self.std, out=result[part])
        return result

    def __call__(self, image: Image.Image) -> Tensor:
        """Transform one image to float32 (3, S, S)."""
        return self.finish(self.prepare(image)[None])[0]

    def __repr__(self) -> str:
        facts = f"name={self.name!r}, train={self.train}, decode={self.decode!r}, preprocess={self.preprocess}"
        return f"ImageTransform({facts})"

    def _normalise(self, pixels: Tensor) -> Tensor:
        # The order of operations is that of ToTensor and Normalize, so that the result is theirs to the last bit.
        values = pixels.to(torch.float32).div_(255)
        mean, std = (torch.tensor(v, device=values.device).view(3, 1, 1) for v in (self.mean, self.std))
        return values.sub_(mean).div_(std)


def image_transform(
    preprocess_cfg: Mapping[str, Any], name: TransformName = "model", train: bool = False, decode: Decode = "exact"
) -> ImageTransform:
    """Make the transform of a model.

    Args:
        preprocess_cfg: The model's `preprocess_cfg` from `open_clip_config.json`: size, mean, std, interpolation,
            resize_mode, fill_color.
        name: "model": open_clip's own evaluation transform, bit for bit; in training with a horizontal flip added.
            "paper": squash to 1.125 S with bicubic filtering, then crop S; in training a random crop, horizontal flip
            and colour jitter of 0.4, else the center crop; normalised with the model's mean and std.
        train: Whether to augment.
        decode: "exact" reads files to open_clip's pixels, "fast" to almost the same ones in a quarter of the time; see
            `ImageTransform.read`.

    Raises:
        ConfigError: An unknown key or name, or images that are not square.
    """
    known = [field.name for field in fields(PreprocessCfg)]
    for key in preprocess_cfg:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} in preprocess_cfg{_nearest(key, known)}")
    if name not in get_args(TransformName):
        names = list(get_args(TransformName))
        raise ConfigError(f"unknown transform {name!r}{_nearest(name, names)}; there are {', '.join(names)}")
    check_choice("decode", decode, Decode)
    given = {key: value for key, value in preprocess_cfg.items() if value is not None}
    try:
        return ImageTransform(PreprocessCfg(**given), name, train, decode)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"cannot use preprocess_cfg {dict(preprocess_cfg)}: {error}") from error


def jitter_and_normalise(
    pixels: Tensor, factors: Tensor, mean: tuple[float, ...], std: tuple[float, ...], out: Tensor | None = None
) -> Tensor:
    """Change brightness, then contrast, then saturation, and normalise, as one affine map of the colours per image.

    Each step is affine in the colours x of an image: brightness b x, contrast c x + (1 - c) m with m the image's mean
    luma, saturation s x + (1 - s) luma(x). So all three, the scaling to [0, 1] and the normalisation are one 3 x 3
    matrix and an offset. Values are clamped to [0, 1] once, after the last step (torchvision: after each).

    Args:
        pixels: uint8 (B, 3, H, W).
        factors: float (B, 3): brightness, contrast, saturation.
        mean: Of the three channels, values in [0, 1].
        std: Likewise.
        out: float32 (B, 3, H, W), contiguous, to write the result to.

    Returns:
        float32 (B, 3, H, W), contiguous.
    """
    batch, _, height, width = pixels.shape
    device = pixels.device
    values = pixels.to(torch.float32, memory_format=torch.contiguous_format).view(batch, 3, height * width)
    luma = torch.tensor(_LUMA, device=device)
    center, scale = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    brightness, contrast, saturation = factors.to(device, torch.float32).unbind(1)
    mean_luma = (values.mean(dim=2) @ luma) / 255 * brightness

    identity, grey = torch.eye(3, device=device), luma.expand(3, 3)
    colour = saturation.view(-1, 1, 1) * identity + (1 - saturation).view(-1, 1, 1) * grey
    matrix = (brightness * contrast / 255).view(-1, 1, 1) * colour / scale.view(3, 1)
    # A grey offset is left as it is by the saturation step, since the luma weights sum to (almost) one.
    shift = ((1 - contrast) * mean_luma).view(-1, 1) * colour.sum(dim=2)
    offset = (shift - center) / scale
    result = torch.empty(pixels.shape, device=device) if out is None else out
    flat = result.view(batch, 3, height * width)
    torch.bmm(matrix, values, out=flat)
    flat.add_(offset.unsqueeze(2))
    for channel in range(3):  # scalar bounds are several times faster than a tensor of them
        low, high = -mean[channel] / std[channel], (1 - mean[channel]) / std[channel]
        flat[:, channel].clamp_(low, high)
    return result


def _crop_and_flip(pixels: Tensor, corners: Tensor, flip: Tensor, size: int) -> Tensor:
    cropped = pixels.new_empty(len(pixels), 3, size, size)
    for target, image, (top, left), mirrored in zip(cropped, pixels, corners.tolist(), flip.tolist(), strict=True):
        window = image[:, top : top + size, left : left + size]
        target.copy_(window.flip(2) if mirrored else window)
    return cropped


def _flip(pixels: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip.to(pixels.device).view(-1, 1, 1, 1), pixels.flip(3), pixels)


def _three(values: float | tuple[float, ...]) -> tuple[float, ...]:
    return (values,) * 3 if isinstance(values, (int, float)) else tuple(float(v) for v in values)


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
