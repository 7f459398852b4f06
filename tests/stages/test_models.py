"""The table of models: its facts are those of open_clip's configurations, and it needs neither network nor torch."""

from __future__ import annotations

import io
import subprocess
import sys

import open_clip
import pytest
import torch
from rich.console import Console

from mcip.models.registry import resolve
from mcip.models.state_dict import SkipInit
from mcip.stages.models import MODELS, KnownModel, models


@pytest.mark.parametrize("known", MODELS, ids=lambda known: known.name)
def test_facts_are_those_of_the_configuration(known: KnownModel) -> None:
    config = resolve(known.name).model_cfg
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    with torch.device("meta"), SkipInit():
        clip = kind(**config)

    def millions(module: torch.nn.Module) -> float:
        return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)

    size = clip.visual.image_size
    actual = millions(clip), millions(clip.visual), config["embed_dim"], size if isinstance(size, int) else size[0]
    assert (known.parameters_m, known.image_parameters_m, known.embed_dim, known.image_size) == actual


def test_the_table_is_shown_and_is_a_frame() -> None:
    shown = io.StringIO()
    Console(file=shown, width=80).print(models())
    words = " ".join(shown.getvalue().replace("│", " ").split())
    frame = models().to_pandas()
    assert len(frame) == len(models()) == len(MODELS)
    assert frame["name"].is_unique
    for known in models():
        line = next(line for line in shown.getvalue().splitlines() if f" {known.name} " in line)
        assert f"{known.embed_dim:,}" in line
        assert known.good_at in words
    assert frame.set_index("name").loc["ViT-B-32/openai", "images_per_s"] == 18.4


@pytest.mark.parametrize("stage", ["models", "export", "interpolate", "doctor"])
def test_a_stage_imports_nothing_heavy(stage: str) -> None:
    code = f"import sys, mcip.stages.{stage}; print(sorted({{m.partition('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in ("torch", "numpy", "open_clip", "pyarrow", "rich", "PIL", "pandas"):
        assert f"'{module}'" not in loaded
