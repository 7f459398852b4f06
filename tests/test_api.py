"""`import mcip`: the functions by name, whatever modules of the same names are imported."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import mcip
from mcip.cli.main import COMMANDS


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_is_quick() -> None:
    run("import sys, mcip; dir(mcip); assert not {'torch', 'numpy', 'mcip.core.errors'} & set(sys.modules)")


def test_rows_are_read_labelled_ordered_and_given_captions_without_pytorch(train: Path, mined: Path) -> None:
    run(
        "import sys, mcip\n"
        "from mcip.data.selection import captioned, labelled\n"
        "from mcip.embeddings.mined_captions import MinedCaptions\n"
        f"table = labelled(captioned(mcip.read_table({str(train)!r}), 'training'))[0]\n"
        "assert len(mcip.training.EpochOrder(len(table), 8, 1).batch(0)) == 8 and table.fingerprint\n"
        f"assert len(MinedCaptions({str(mined)!r}).of_images(list(table.ids)).starts) == len(table)\n"
        "assert not {'torch', 'open_clip', 'lance'} & set(sys.modules)"
    )


def test_every_public_name_is_there() -> None:
    for name in mcip.__all__:
        assert name in dir(mcip)
        value = getattr(mcip, name)
        assert isinstance(value, str if name == "__version__" else (FunctionType, ModuleType, type))


def test_a_loop_of_ones_own_needs_no_other_import() -> None:
    run(
        "import mcip\n"
        "assert mcip.objectives.ImageTuning and mcip.losses.ArcMargin and mcip.metrics.retrieval_map\n"
        "assert mcip.training.fit and mcip.training.FitSettings and mcip.training.EpochOrder\n"
        "assert isinstance(mcip.load('toyshop'), mcip.Model)\n"
        "from mcip.training.objectives import ImageTuning\n"
        "assert mcip.objectives.ImageTuning is ImageTuning\n"
    )


def test_the_docstring_names_every_public_name() -> None:
    named = set(re.findall(r"`(\w+)`", mcip.__doc__ or ""))
    assert named >= set(mcip.__all__) - {"__version__"}


def test_type_checkers_read_the_annotations() -> None:
    assert (files("mcip") / "py.typed").is_file()


# `mcip.models` is the package of that name.
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "models"])
def test_stage_is_a_function_beside_a_module(name: str) -> None:
    module = importlib.import_module("mcip.toyshop.demo" if name == "demo" else f"mcip.stages.{name}")
    assert isinstance(module, ModuleType)
    assert getattr(mcip, name) is getattr(module, name)
    assert callable(getattr(mcip, name))


def test_functions_stay_functions_when_the_module_comes_first() -> None:
    run(
        "import mcip.stages.tune, importlib, sys\n"
        "module = importlib.import_module('mcip.stages.embed')\n"
        "assert module is sys.modules['mcip.stages.embed'] and mcip.embed is module.embed\n"
        "from mcip.training.objectives.image_tuning import ImageTuning\n"
        "from mcip import tune, models\n"
        "assert callable(tune) and tune is mcip.tune and mcip.load is models.load"
    )


def test_functions_stay_functions_when_the_module_comes_later() -> None:
    run(
        "import mcip\n"
        "assert callable(mcip.tune)\n"
        "import mcip.stages.tune, mcip.stages.mine\n"
        "assert callable(mcip.tune) and callable(mcip.mine)\n"
        "from mcip import *\n"
        "assert callable(tune) and callable(evaluate) and losses.ArcMargin and metrics.retrieval_map"
    )


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tuen'"):
        _ = mcip.tuen
    with pytest.raises(ImportError):
        importlib.import_module("mcip.nothing")
