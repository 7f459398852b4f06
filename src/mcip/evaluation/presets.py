"""Presets: the protocols of benchmarks, the paper's and the standard one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mcip.core.choices import TransformName

PresetName: TypeAlias = Literal["paper", "standard"]
# What happens to the query in its own ranking where queries and gallery are the same images: it stays, the nearest item
# is dropped whatever it is, or the query is taken out by its id.
SelfMatch: TypeAlias = Literal["kept", "first dropped", "excluded"]


@dataclass(frozen=True)
class Preset:
    """A protocol.

    Attributes:
        name: "paper" or "standard".
        image_transform: For image to image and k-NN: "paper" squashes to 1.125 S and crops the center S, "model" is the
            model's own.
        text_transform: For zero-shot and for retrieval between texts and images.
        exclude_self: Whether a query is taken out of its own ranking by its id. Where it is not, each benchmark says
            what the paper did.
        crop_queries: Whether query images are cropped to their box where the benchmark has boxes.
        merge_folders: Whether INSTRE's folders of one name in different parts are one class.
    """

    name: PresetName
    image_transform: TransformName
    text_transform: TransformName
    exclude_self: bool
    crop_queries: bool
    merge_folders: bool


# Schall et al., SISAP 2024, as their code at Visual-Computing/MCIP has it (data/*.py, eval.py, evaluation/utils.py).
PAPER = Preset("paper", "paper", "model", exclude_self=False, crop_queries=False, merge_folders=True)
# Each benchmark's own protocol: revisitop's cropped queries (Radenovic et al., CVPR 2018), metric learning's Recall@k
# without the query itself, and for every image what open_clip does to it.
STANDARD = Preset("standard", "model", "model", exclude_self=True, crop_queries=True, merge_folders=False)

PRESETS: dict[PresetName, Preset] = {preset.name: preset for preset in (PAPER, STANDARD)}
