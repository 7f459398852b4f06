"""The one table, its readers, and what turns its images into a model's input.

Everything is imported at first use: decoding an image needs neither PyTorch nor `datasets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcip.core.lazy import lazy_names

if TYPE_CHECKING:
    from mcip.data.caption_pool import read_captions
    from mcip.data.images import decode, to_rgb
    from mcip.data.loader import Pixels
    from mcip.data.table import Table, read_table
    from mcip.data.transforms import ImageTransform, image_transform

__all__ = [
    "ImageTransform",
    "Pixels",
    "Table",
    "decode",
    "image_transform",
    "read_captions",
    "read_table",
    "to_rgb",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ImageTransform": "transforms",
        "Pixels": "loader",
        "Table": "table",
        "decode": "images",
        "image_transform": "transforms",
        "read_captions": "caption_pool",
        "read_table": "table",
        "to_rgb": "images",
    },
)
