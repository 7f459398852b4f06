"""Improve a model for one's own labelled images: captions, trials within a budget, a choice by validation, a proof."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mcip.core.choices import Precision
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices, recorded
from mcip.core.processes import check_one_process
from mcip.stages.inputs import ColumnsInput, DataInput, ModelInput, open_model

if TYPE_CHECKING:
    from mcip.data.table import Table
    from mcip.embeddings.store import Embeddings
    from mcip.models.model import Model
    from mcip.reporting.report import Report
    from mcip.stages.improve_data import Prepared
    from mcip.stages.improve_plan import Plan
    from mcip.stages.improve_trials import Ledger

Favour: TypeAlias = Literal["images", "balance", "text"]
KIND = "improved"


def improve(
    data: DataInput,
    out: Path,
    model: ModelInput,
    *,
    budget: str = "1h",
    favour: Favour = "balance",
    pool: DataInput | None = None,
    columns: ColumnsInput | None = None,
    pool_columns: ColumnsInput | None = None,
    pool_filters: str | None = None,
    k: int = 10,
    dry_run: bool = False,
    seed: int = 37,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> Report | Plan:
    """Find a better model for labelled images within a budget of time, and write a page that says what it is worth.

    It splits the images by class (or takes the table's splits), makes captions, tries `mcip adapt`, then tunings with
    other methods, learning rates and caption weights, the better half of each round going on with twice the steps,
    the lines between the best and the base, and a realigned text tower where there are captioned images. Validation
    images choose; the test images, of classes that are in neither, are measured once. A plan with estimated times is
    printed first. Killed at any moment and started again with the same command, it resumes.

    Args:
        data: The labelled images: a folder of class folders, CSV, parquet, webdataset tars or a hub name. Its splits
            are taken if it has train and test.
        out: The folder of the run: `model` in it is the chosen model, `report.html` the page.
        model: The model to improve: what `mcip.load` takes.
        budget: The time that may be spent, over all starts: such as 90s, 30min or 2h. A trial that would take longer
            is cut; time for the test is kept.
        favour: What the choice favours: "images" (image to image only), "balance" (as much text as images) or "text"
            (three times as much text).
        pool: Captions to mine, see `mcip mine`; if not given, those that can be made of the table and of its labels,
            and general phrases.
        columns: Which of the source's columns are the table's, for example image=path,label=category.
        pool_columns: Which of the pool's columns holds the captions, for example caption=title.
        pool_filters: Which captions of the pool stay, see `mcip mine`.
        k: Captions mined per image.
        dry_run: Only print the plan; nothing is written.
        seed: Seeds the splits and the trainings.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The page, `out`/report.html, which shows the table of the test; the plan for `dry_run`.

    Raises:
        ConfigError: A parameter is out of range, or text is favoured where nothing can measure it.
        DataError: There are too few classes or images; the message says what would be enough.
        ArtefactError: `out` holds another run.

    Example:
        >>> page = mcip.improve("products.csv", "runs/better", "ViT-B-16/openai", budget="2h")  # doctest: +SKIP
        >>> page.comparison.headline_model  # doctest: +SKIP
        'mcip-lr0.0001-w0.2-400-alpha0.7'
    """
    check_choices(improve, locals())
    began = time.monotonic()
    check_one_process()
    from mcip.core.artefacts import Artefact
    from mcip.core.device import pick_device
    from mcip.data import read_captions, read_table
    from mcip.data.class_splits import check_enough
    from mcip.data.column_names import caption_column, columns_of
    from mcip.data.selection import labelled
    from mcip.embeddings.encode import copy_embeddings
    from mcip.embeddings.mining import images_folder
    from mcip.stages.improve_data import MOST_VALIDATION, REALIGN, WORK, has_splits, pool_size, write_pool
    from mcip.stages.improve_plan import make_plan, parse_budget
    from mcip.stages.improve_proof import prove, read_proof
    from mcip.stages.improve_speed import Speed
    from mcip.stages.improve_trials import FAVOURS, Trials
    from mcip.stages.mine import mine

    out, work = Path(out), Path(out) / WORK
    seconds = parse_budget(budget)
    base, target = open_model(model), pick_device(device)
    table, without_label = labelled(read_table(data, columns=columns))
    if not has_splits(table):
        check_enough(table.label_numbers)
    texts = None if pool is None else read_captions(pool, caption_column(pool_columns))

    def planned() -> Plan:
        captioned = len(table.rows_with_captions)
        return make_plan(
            Speed.measure(base, table, target, precision), seconds, images=len(table), train=round(0.7 * len(table)),
            validation=min(round(0.15 * len(table)), MOST_VALIDATION), test=round(0.15 * len(table)),
            classes=round(0.7 * len(table.classes)), dim=base.embed_dim,
            captions=pool_size(table) if texts is None else len(texts),
            realign=captioned if captioned >= REALIGN else 0,
        )  # fmt: skip

    if dry_run:
        return planned()
    made_from = recorded(
        improve, locals(), ("columns", "pool_columns", "dry_run"), data=table.fingerprint, model=base.fingerprint,
        pool=texts and texts._fingerprint,
    )  # fmt: skip
    options: dict[str, Any] = {
        "workers": workers, "device": device, "precision": precision, "max_unreadable": max_unreadable,
    }  # fmt: skip
    with Artefact.begin(out, KIND, made_from) as artefact:
        if not artefact.complete:
            plan, ledger = _plan(work, planned, seconds, began, without_label)
            with base.on(target):
                prepared, images = _split(work, base, table, ledger, seed, options)
            _check_measurable(favour, prepared)
            with ledger.count("mine captions"):
                place = images_folder(work / "embeddings", prepared.train, base)
                stored = copy_embeddings(images, prepared.train, base, place)
                made = None if pool is not None else write_pool(data, prepared.train, work, columns_of(columns))
                mined = mine(
                    prepared.train, str(made) if pool is None else pool, work / "captions", base, k=k,
                    pool_columns=pool_columns, pool_filters=pool_filters, embeddings=work / "embeddings", **options,
                )  # fmt: skip
            source = str(base.folder.absolute()) if base.folder is not None else base.source
            trials = Trials(
                source, prepared, mined, stored.artefact.folder, plan, ledger, work / "trials",
                FAVOURS[favour], {"seed": seed, **options},
            )  # fmt: skip
            facts = prove(trials, trials.run(), out, data, favour, seconds)
            artefact.finish(leave_out=(WORK,), **facts)
    return read_proof(out)


def _plan(
    work: Path, planned: Callable[[], Plan], seconds: float, began: float, without_label: list[str]
) -> tuple[Plan, Ledger]:
    """The plan of the first start, which every later one follows, and what has been spent by now."""
    from mcip.core.files import read_json, write_json
    from mcip.core.progress import console
    from mcip.stages.improve_plan import TEST, Plan
    from mcip.stages.improve_trials import Ledger

    work.mkdir(exist_ok=True)
    if not (work / "plan.json").exists():
        write_json(work / "plan.json", planned().as_dict())
    plan = Plan.of_dict(read_json(work / "plan.json"))
    console.print(plan)
    ledger = Ledger(work / "time.json", seconds, plan.parts.get(TEST, 0.0))
    ledger.add("start", time.monotonic() - began)
    if without_label:
        console.print(f"{len(without_label)} images without a label are left out.")
    return plan, ledger


def _split(
    work: Path, base: Model, table: Table, ledger: Ledger, seed: int, options: dict[str, Any]
) -> tuple[Prepared, Embeddings]:
    """The splits, written, and the base's embeddings of all images, which find near-duplicates across them."""
    from mcip.core.progress import console
    from mcip.embeddings.encode import embed_images
    from mcip.stages.improve_data import choose_split, prepare

    with ledger.count("embed all images"):
        images = embed_images(
            table, base, work / "images", workers=options["workers"], precision=options["precision"],
            max_unreadable=options["max_unreadable"],
        )  # fmt: skip
    with ledger.count("split"):
        prepared = prepare(*choose_split(table, images, seed), work)
    console.print(prepared.rule, soft_wrap=True)
    return prepared, images


def _check_measurable(favour: Favour, prepared: Prepared) -> None:
    if favour == "text" and prepared.text is None:
        raise ConfigError(
            "favour is 'text', but nothing can measure text: the labels are no names, and there are too few "
            "captions. Give captions, or --favour images."
        )
