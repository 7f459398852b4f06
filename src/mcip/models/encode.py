"""What `Model.encode` takes, images and texts in any mixture, and how it goes through the towers batch by batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import unquote

import fsspec  # type: ignore[import-untyped]
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcip.core.choices import TransformName
from mcip.core.errors import ModelError, UnreadableImage
from mcip.core.progress import Advance, progress
from mcip.data import ImageTransform, decode, to_rgb
from mcip.data.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from mcip.models.model import Model

Kind: TypeAlias = Literal["image", "text"]
# An image in memory, a file's bytes, or the path or URI of a file; or a text.
EncodeInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image
_MAX_BYTES: Final = 1 << 28


def kind_of(item: object, position: int = 0) -> Kind:
    """Whether an input is an image or a text.

    Images, bytes and paths are images. A string is an image where it names an existing image file or is the URI of
    one; every other string is a text.

    Raises:
        ModelError: It is of another type, or a string that looks like the name of an image file that is not there.
    """
    if isinstance(item, Image.Image | bytes | os.PathLike):
        return "image"
    if not isinstance(item, str):
        raise ModelError(
            f"Input {position} is a {type(item).__name__}: encode takes texts, PIL images, and paths of image files. "
            "Finished pixels go to embed_pixels, tokens to embed_tokens."
        )
    if os.path.splitext(item)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122 - a text may be no valid path
        return "text"
    if _is_uri(item) or _is_file(item):
        return "image"
    if any(character.isspace() for character in item):
        return "text"
    raise ModelError(f'There is no image file {item!r}. If it is meant as a text, pass kind="text".')


def encode(
    model: Model, inputs: Sequence[EncodeInput], kind: Kind | None, transform: TransformName, batch_size: int,
    normalize: bool, show_progress_bar: bool, workers: int,
) -> Tensor:  # fmt: skip
    """Embed a list of inputs, float32 (n, D) on the device of the tower; see `Model.encode`."""
    if kind not in (None, "image", "text"):
        raise ModelError(f"kind is {kind!r}: it is 'image', 'text', or None, which decides by the type of each input.")
    if batch_size < 1 or workers < 0:
        raise ModelError(f"batch_size ({batch_size}) must be 1 or more, workers ({workers}) 0 or more.")
    kinds = [kind or kind_of(item, position) for position, item in enumerate(inputs)]
    images = [position for position, found in enumerate(kinds) if found == "image"]
    texts = [position for position, found in enumerate(kinds) if found == "text"]
    # Texts of like length go together: a batch takes the time of its longest.
    texts.sort(key=lambda position: len(_text(inputs[position], position)))
    device = model.text_device if texts and not images else model.device
    result = torch.empty(len(inputs), model.embed_dim, device=device)
    with _bar(len(inputs), show_progress_bar) as advance:
        for rows in _batches(texts, batch_size):
            tokens = model.tokenizer([_text(inputs[row], row) for row in rows])
            result[rows] = model.embed_tokens(tokens, normalize).to(device)
            advance(len(rows))
        if not images:
            return result
        prepared = model.transform(transform)
        rows_of = _batches(images, batch_size)
        for rows, pixels in zip(rows_of, _prepared(inputs, images, prepared, batch_size, workers), strict=True):
            result[rows] = model.embed_pixels(prepared.finish(pixels.to(model.device)), normalize)
            advance(len(rows))
    return result


def load_image(item: EncodeInput) -> Image.Image:
    """Decode one input that is an image to RGB.

    Raises:
        UnreadableImage: It cannot be read; the message is the reason.
    """
    if isinstance(item, Image.Image):
        return to_rgb(item)
    if isinstance(item, str) and item.startswith("file://"):
        raw = Path(item.removeprefix("file://"))
        return decode(raw if raw.exists() else Path(unquote(str(raw))))
    if isinstance(item, str) and _is_uri(item):
        return decode(_fetch(item))
    return decode(item if isinstance(item, bytes) else _expanded(item))


class _Images(Dataset[Tensor | str]):
    """The images at uint8 (3, P, P), or the reason why one cannot be read."""

    def __init__(self, inputs: Sequence[EncodeInput], rows: Sequence[int], transform: ImageTransform) -> None:
        self.inputs = [inputs[row] for row in rows]
        self.rows = rows
        self.transform = transform

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> Tensor | str:
        try:
            return self.transform.prepare(load_image(self.inputs[number]))
        except UnreadableImage as error:
            item = self.inputs[number]
            name = f" ({item})" if isinstance(item, str | os.PathLike) else ""
            return f"Input {self.rows[number]}{name} cannot be read: {error}"


def _prepared(
    inputs: Sequence[EncodeInput], rows: Sequence[int], transform: ImageTransform, batch_size: int, workers: int
) -> Iterator[Tensor]:
    """The batches of uint8 (b, 3, P, P)."""
    if not rows:
        return
    # With a generator of its own the loader leaves the global one, which training draws from, as it is.
    loader: DataLoader[Any] = DataLoader(
        _Images(inputs, rows, transform), batch_size, num_workers=workers, collate_fn=list, generator=torch.Generator()
    )
    for batch in loader:
        if reasons := [pixels for pixels in batch if isinstance(pixels, str)]:
            raise UnreadableImage(reasons[0])
        yield torch.stack(batch)


def _text(item: EncodeInput, position: int) -> str:
    if not isinstance(item, str):
        raise ModelError(f'Input {position} is a {type(item).__name__}, but kind="text" was given.')
    return item


def _batches(rows: Sequence[int], size: int) -> list[list[int]]:
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def _is_uri(text: str) -> bool:
    return "://" in text


def _is_file(text: str) -> bool:
    try:
        return _expanded(text).is_file()
    except (OSError, ValueError):  # too long for a path, a NUL character
        return False


def _expanded(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - leaves an unknown `~name` as it is


def _fetch(uri: str) -> bytes:
    try:
        with fsspec.open(uri, "rb") as file:
            content: bytes = file.read(_MAX_BYTES + 1)
    except Exception as error:  # every file system has its own errors
        raise UnreadableImage(f"cannot fetch it: {str(error) or type(error).__name__}") from error
    if len(content) > _MAX_BYTES:
        raise UnreadableImage(f"larger than {_MAX_BYTES:,} bytes")
    return content


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Advance]:
    if show:
        with progress("encode", total, "inputs") as advance:
            yield advance
    else:
        yield lambda amount, note="": None
