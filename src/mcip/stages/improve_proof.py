"""What an improvement is worth: the test images measured once, the page, and what to do with the model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcip import models
from mcip.core.files import read_json
from mcip.evaluation.several import measure_models
from mcip.reporting.comparison import Comparison
from mcip.reporting.improvement import Improvement
from mcip.reporting.mined import read_mined
from mcip.reporting.report import Report, write_report
from mcip.reporting.results import read_results
from mcip.stages.improve_data import WORK
from mcip.stages.improve_trials import FAVOURS, Trials

if TYPE_CHECKING:
    from mcip.stages.improve import Favour
    from mcip.stages.inputs import DataInput


def prove(trials: Trials, chosen: str, out: Path, data: DataInput, favour: Favour, seconds: float) -> dict[str, Any]:
    """Measure the base, the chosen model and the runners-up on the test images, and write the model and the page.

    Args:
        trials: The trials, which have run.
        chosen: The name of the best on validation.
        out: The folder of the run.
        data: The labelled images, as they were given.
        favour: What the choice favoured.
        seconds: The budget.

    Returns:
        What the manifest records.
    """
    prepared, ledger = trials.data, trials.ledger
    options = {name: value for name, value in trials.options.items() if name != "seed"}
    compared = dict.fromkeys(["base", chosen, *trials.runners_up(chosen)])
    with ledger.count("the test"):
        paths = measure_models(
            {name: trials.paths[name] for name in compared},
            prepared.tasks(prepared.test),
            out / WORK / "results",
            **options,
        )
    models.save(models.load(trials.paths[chosen]), out / "model", {"improved": trials.base, "chosen": chosen})
    improvement = Improvement(
        chosen, [prepared.rule, _score_rule(favour, prepared.text)], list(trials.tried.values()), prepared.text,
        ledger.seconds, ledger.left_out, seconds, _commands(out, data),
    )  # fmt: skip
    with ledger.count("the page"):
        mined = read_mined(trials.mined, [prepared.train])
        write_report(_comparison(paths, chosen), out, mined, 6, 8, improvement)
    return {
        "chosen": chosen, "split": prepared.rule, "seconds": ledger.seconds, "left_out": ledger.left_out,
        "tried": {name: vars(one) for name, one in trials.tried.items()},
        "results": [str(path.relative_to(out)) for path in paths],
    }  # fmt: skip


def read_proof(out: Path) -> Report:
    """The page of a finished run."""
    manifest = read_json(out / "manifest.json")
    chosen = manifest["chosen"]
    comparison = _comparison([out / path for path in manifest["results"]], chosen)
    if chosen != "base":
        better = f"It is {chosen}"
    elif len(manifest["tried"]) > 1:
        better = "No model was better on validation: this is the model as it was"
    else:
        better = "There was no time to try anything: give a longer --budget, and another --out"
    return Report(out / "report.html", comparison, [f"The model is {out / 'model'}. {better}."])


def _comparison(paths: list[Path], chosen: str) -> Comparison:
    return Comparison.of([read_results(path) for path in paths], "base", None if chosen == "base" else chosen)


def _score_rule(favour: Favour, text: str | None) -> str:
    """How the model was chosen, a sentence."""
    share = FAVOURS[favour]
    if text is None:
        return "The highest mAP of image to image on validation chose; nothing here can measure text."
    if share == 1:
        return f"The highest mAP of image to image on validation chose (--favour {favour})."
    word = "R@5 of text to image" if text == "t2i" else "top 1 of zero-shot classification by the names of the classes"
    return (
        f"The highest score on validation chose: {share:g} times the mAP of image to image and {1 - share:g} times "
        f"the {word} (--favour {favour})."
    )


def _commands(out: Path, data: DataInput) -> list[tuple[str, str]]:
    """What to do with the model: a purpose and a command line each."""
    place = shlex.quote(data) if isinstance(data, str) else "IMAGES"
    model = shlex.quote(str(out / "model"))
    return [
        ("Index images with it, and search them on a page:",
         f"mcip index --data {place} --db photos.lance --model {model}\nmcip serve --db photos.lance"),
        ("Load it in Python, with mcip or with open_clip:",
         f'model = mcip.load("{out / "model"}")\nmodel.encode(["photo.jpg"], kind="image")'),
        ("Measure it on other images that it was not trained on:",
         f"mcip evaluate --data TEST_TABLE --model better={model} --out results"),
    ]  # fmt: skip
