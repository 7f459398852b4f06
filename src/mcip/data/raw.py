"""Camera RAW: telling it from other files, and the preview that stands for it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from PIL import ExifTags, Image, TiffImagePlugin

from mcip.core.errors import UnreadableImage
from mcip.core.optional import module_or_none

if TYPE_CHECKING:
    import rawpy

RAW_SUFFIXES: Final = (
    ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr",
)  # fmt: skip
# Fuji, Olympus (three kinds), Panasonic, and Canon's CR3.
_MAGICS: Final = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
_CR3: Final = b"ftypcrx "
_TIFF: Final = (b"II*\0", b"MM\0*")
_CR2: Final = b"CR\x02"
_DNG_VERSION: Final = 50706
# Of TIFF: values of Photometric and of Compression that only RAW has.
_MOSAIC: Final = (32803, 34892)
_RAW_COMPRESSIONS: Final = (32767, 32769, 32770, 34713, 65535)
# A preview whose longer side has this many pixels is enough; one as long as the developed image always is.
_ENOUGH: Final = 512
# Memory for each pixel of the mosaic while it is developed at half size.
_BYTES_PER_PIXEL: Final = 12
# LibRaw's way to say how an image is turned.
_TURNS: Final = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.ROTATE_90, 6: Image.Transpose.ROTATE_270}


def is_raw(content: bytes) -> bool:
    """Whether a file is camera RAW by what it says of itself; most kinds are TIFF files with tags of their own."""
    if content.startswith(_MAGICS) or content[4:12] == _CR3:
        return True
    if not content.startswith(_TIFF):
        return False
    if content[8:11] == _CR2:
        return True
    try:
        tags = first_tags(content)
        compression, photometric = (tags.get(tag) for tag in (ExifTags.Base.Compression, 262))
        # The first image of a file with this make is a small one, and the others stand below it.
        is_preview = tags.get(254) == 1 and ExifTags.Base.SubIFDs in tags and ExifTags.Base.Make in tags
    except Exception:  # Pillow raises many kinds of errors on damaged files
        return False
    return _DNG_VERSION in tags or photometric in _MOSAIC or compression in _RAW_COMPRESSIONS or is_preview


def first_tags(content: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags of the first image of a TIFF file."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
    stream = io.BytesIO(content)
    stream.seek(tags.next)
    tags.load(stream)
    return tags


def raw_preview(
    content: bytes, decode: Callable[[bytes], Image.Image], check_size: Callable[[tuple[int, int], int], None]
) -> Image.Image:
    """The preview that a camera has put into a RAW file, or the image developed at half size where that is larger.

    Args:
        content: The file.
        decode: Decodes the preview, a JPEG file.
        check_size: Called with the mosaic's width and height and the bytes that each of its pixels takes; may raise.

    Returns:
        An upright image of mode "RGB".

    Raises:
        UnreadableImage: The extra that reads RAW is not installed.
        ConfigError: It is installed, but cannot be imported.
        Exception: What LibRaw raises on damaged files and on cameras that it does not know.
    """
    library = module_or_none("rawpy")
    if library is None:
        raise UnreadableImage("camera RAW needs pip install 'mcip[photos]'")
    with library.imread(io.BytesIO(content)) as raw:
        sizes = raw.sizes
        check_size((sizes.raw_width, sizes.raw_height), _BYTES_PER_PIXEL)
        embedded = _embedded(raw, library, decode)
        if embedded is not None and max(embedded.size) >= min(_ENOUGH, max(sizes.width, sizes.height) // 2):
            return embedded
        return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8))


def _embedded(raw: rawpy.RawPy, library: Any, decode: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """The largest preview in a RAW file, upright; None where there is none that can be read."""
    try:
        found = raw.extract_thumb()
        turn = _TURNS.get(raw.sizes.flip)
        if not isinstance(found.data, bytes):
            image = Image.fromarray(found.data).convert("RGB")
        else:
            image = decode(found.data)
            with Image.open(io.BytesIO(found.data), formats=["JPEG"]) as encoded:
                # `decode` has turned it then.
                turn = None if ExifTags.Base.Orientation in encoded.getexif() else turn
    except (library.LibRawError, UnreadableImage, OSError, SyntaxError, ValueError):
        return None
    return image if turn is None else image.transpose(turn)
