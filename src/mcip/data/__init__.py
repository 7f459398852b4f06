"""The one table, its readers, and what turns its images into a model's input."""

from mcip.data.images import decode, to_rgb
from mcip.data.loader import Pixels
from mcip.data.table import Table, read_captions, read_table
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
