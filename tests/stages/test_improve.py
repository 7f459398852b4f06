"""`mcip improve`: the whole way on toy images, resumed after any stop, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcip.core.errors import ConfigError, DataError
from mcip.core.files import read_json
from mcip.core.progress import progress
from mcip.data import read_captions, read_table
from mcip.evaluation.several import measure_models
from mcip.reporting.improvement import Tried
from mcip.reporting.report import Report
from mcip.stages import improve_plan, improve_trials
from mcip.stages.improve import improve
from mcip.stages.improve_data import label_names, write_pool
from mcip.stages.improve_plan import ADAPTERS, REALIGNMENTS, TUNINGS, Plan, Trial, make_plan, parse_budget
from mcip.stages.improve_speed import Speed
from mcip.stages.improve_trials import Ledger, Trials
from mcip.toyshop.tables import Slice, write_slice
from tests.tiny import contents

COUNTS = {"images": 2000, "train": 1400, "validation": 300, "test": 300, "classes": 100, "dim": 512, "captions": 5000}
STEP = {"adapt": 0.01, "tune": 0.01, "align": 0.01}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 products with 5 images of a caption each."""
    part = Slice("products", stream=201, products=30, images=5, captions=1)
    return write_slice(part, tmp_path_factory.mktemp("improve") / "products.parquet")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of a few steps, whatever the machine."""

    def plan(speed: Speed, budget: float, **_: int) -> Plan:
        realigned = [trial.long(2) for trial in REALIGNMENTS[:1]]
        return Plan(
            budget, {"all": 1.0}, [ADAPTERS[0].long(5)], list(TUNINGS[:2]), [2, 1], [2, 4], realigned, STEP, 0.01
        )

    monkeypatch.setattr(improve_plan, "make_plan", plan)
    monkeypatch.setattr(improve_trials, "ALPHAS", (0.5,))


def run(images: Path, base: Path, out: Path, **settings: Any) -> Any:
    return improve(str(images), out, str(base), budget="2h", device="cpu", k=3, **settings)


def test_the_whole_way_resumes_to_the_same_model(
    images: Path, base: Path, pool: Path, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = run(images, base, tmp_path / "whole", pool=str(pool))
    assert isinstance(page, Report)
    manifest = read_json(tmp_path / "whole" / "manifest.json")
    tried = manifest["tried"]
    # The matrix was better than the base: tunings start from it.
    assert tried["adapt-keep1-5"]["score"] > tried["base"]["score"]
    tunings = [f"adapt-keep1-5+{name}" for name in ("mcip-lr0.0001-w0.2-2", "gpr-ft-lr0.0001-2")]
    halfway = [f"{name}-alpha0.5" for name in tunings]
    assert {"base", "adapt-keep1-5", "adapt-keep1-5-alpha0.5", *tunings, *halfway} <= tried.keys()
    assert sum(name.endswith("-4") for name in tried) == 1, "the better half goes on"
    assert tried[manifest["chosen"]]["score"] == max(one["score"] for one in tried.values())
    for one in tried.values():
        assert one["score"] == pytest.approx((one["images"] + one["text"]) / 2)
    assert {"start", "embed all images", "mine captions", "the test", "the page", *tried} <= manifest["seconds"].keys()
    html = page.path.read_text(encoding="utf-8")
    for part in (
        "What was tried",
        "Use the model",
        "mcip index",
        "Before and after: i2i",
        "Mined captions",
        "By class",
    ):
        assert part in html

    test = read_table(tmp_path / "whole" / "work" / "test.parquet")
    trained = read_json(tmp_path / "whole" / "work" / "trials" / tunings[1] / "classes.json")
    assert not set(test.labels) & set(trained)

    real, stops = measure_models, iter([1, 3])
    left = [next(stops)]

    def stopping(*arguments: Any, **named: Any) -> Any:
        if left[0] == 0:
            left[0] = next(stops, -1)
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*arguments, **named)

    monkeypatch.setattr(improve_trials, "measure_models", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(images, base, tmp_path / "stopped", pool=str(pool))
    run(images, base, tmp_path / "stopped", pool=str(pool))
    again = read_json(tmp_path / "stopped" / "manifest.json")
    assert again["tried"] == tried
    whole, stopped = (contents(tmp_path / name / "model") for name in ("whole", "stopped"))
    assert whole["open_clip_model.safetensors"] == stopped["open_clip_model.safetensors"]
    assert run(images, base, tmp_path / "stopped", pool=str(pool)).comparison.models == page.comparison.models


def test_tunings_start_from_a_matrix_only_if_it_is_better_and_the_best_of_a_line_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"base": 5.0, "adapt-keep1-5": 4.0}
    # At its end the first is ahead, halfway to the base the second.
    first, second = TUNINGS[:2]
    scores |= {f"{first.name}-2": 6.0, f"{first.name}-2-alpha0.5": 5.5}
    scores |= {f"{second.name}-2": 3.0, f"{second.name}-2-alpha0.5": 7.0, f"{second.name}-4": 8.0}
    starts: dict[str, str] = {}

    def measured(trials: Trials, name: str, path: str, what: str, line: str, alpha: float) -> None:
        trials.tried[name] = Tried(name, what, line, alpha, scores.get(name, 0.0), None, scores.get(name, 0.0))
        trials.paths[name] = path

    def trained(trials: Trials, trial: Trial, name: str, start: str) -> None:
        starts[name] = start
        measured(trials, name, name, "", name, 1.0)

    monkeypatch.setattr(Trials, "_measure", measured)
    monkeypatch.setattr(Trials, "_run", trained)
    monkeypatch.setattr(improve_trials, "interpolate", lambda *_, **__: "between")
    plan = Plan(60.0, {}, [ADAPTERS[0].long(5)], [first, second], [2, 1], [2, 4], [], STEP, 0.0)
    data: Any = SimpleNamespace(train=range(9), captioned=None)
    ledger = Ledger(tmp_path / "time.json", plan.budget)
    trials = Trials("base", data, None, tmp_path, plan, ledger, tmp_path, 0.5, {})  # type: ignore[arg-type]
    assert trials.run() == f"{second.name}-4"
    assert f"{first.name}-4" not in starts
    assert set(starts.values()) == {"base"}


def test_the_last_tuning_has_the_steps_that_there_is_time_for(tmp_path: Path) -> None:
    plan = Plan(1000.0, {}, [], list(TUNINGS[:2]), [2, 1], [100, 200], [], {"tune": 1.0, "align": 1.0}, 2.0)

    def trials() -> Trials:
        ledger, data = Ledger(tmp_path / "time.json", plan.budget), SimpleNamespace()
        return Trials("base", data, None, tmp_path, plan, ledger, tmp_path, 0.5, {})  # type: ignore[arg-type]

    first = trials()
    assert first._that_fit(200) == 200
    # A trial of 100 steps took twice the time: 850 s are left, less 18 for nine measurements, at 2 s a step.
    first.ledger.add("one", 150.0)
    first.expected["one"] = ("tune", 75.0)
    assert first._that_fit(600) == 416
    assert first.ledger.decide("the last tuning", 416) == 416
    assert trials().ledger.decide("the last tuning", 600) == 416, "a later start keeps to it"
    first.ledger.add("one", 5000.0)
    assert first._that_fit(600) == 1


def test_a_dry_run_writes_nothing(images: Path, base: Path, tmp_path: Path) -> None:
    plan = run(images, base, tmp_path / "out", dry_run=True)
    assert isinstance(plan, Plan)
    assert not (tmp_path / "out").exists()


def test_a_budget_that_leaves_no_time_to_try_anything(images: Path, base: Path, pool: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"pool": str(pool), "budget": "1s", "device": "cpu", "k": 3}
    plan = improve(str(images), tmp_path, str(base), dry_run=True, **given)
    assert isinstance(plan, Plan)
    assert "More than the budget" in str(plan.__rich__().caption)
    page = improve(str(images), tmp_path / "out", str(base), **given)
    assert isinstance(page, Report)
    assert "There was no time to try anything" in page.notes[0]
    assert "longer --budget" in page.notes[0]


def test_what_cannot_be_split_or_measured_is_refused(base: Path, short: None, tmp_path: Path) -> None:
    few = write_slice(Slice("few", stream=202, products=4, images=12), tmp_path / "few.parquet")
    with pytest.raises(DataError, match=r"48 images, and 4 classes.* 8 such classes are enough"):
        run(few, base, tmp_path / "few")
    bare = write_slice(Slice("bare", stream=203, products=12, images=4), tmp_path / "bare.parquet")
    with pytest.raises(ConfigError, match="nothing can measure text"):
        run(bare, base, tmp_path / "bare", favour="text")
    with pytest.raises(ConfigError, match="favour is 'speed'"):
        run(bare, base, tmp_path / "speed", favour="speed")
    with pytest.raises(ConfigError, match="budget is 'soon'"):
        improve(str(bare), tmp_path / "soon", str(base), budget="soon")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30min", 1800), ("30m", 1800), (" 2 h", 7200)])
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("budget", [60.0, 600.0, 3600.0, 36_000.0])
@pytest.mark.parametrize("speed", [Speed(0.001, 0.001, 0.004, 1e-11), Speed(0.01, 0.3, 1.0, 1e-11)])
def test_a_plan_keeps_to_its_budget_where_anything_can_be_tuned(budget: float, speed: Speed) -> None:
    plan = make_plan(speed, budget, **COUNTS, realign=500)
    if plan.tunings:
        assert sum(plan.parts.values()) <= budget
        assert len(plan.tunings) == plan.counts[0]
        assert plan.counts[-1] == 1
    assert Plan.of_dict(plan.as_dict()) == plan


def test_many_classes_take_time_and_adapters_a_tenth_of_the_budget() -> None:
    few, many = (
        make_plan(Speed(0.001, 0.001, 0.004, 1e-11), 1800.0, **{**COUNTS, "classes": classes}, realign=0)
        for classes in (100, 60_000)
    )
    # 3 x 256 x 512 x (60,000 + 2,560) products of 1e-11 s.
    assert many.step_seconds["adapt"] == pytest.approx(1e-3 + 0.2460, rel=1e-2)
    assert many.step_seconds["tune"] > few.step_seconds["tune"]
    taken = [next(seconds for part, seconds in plan.parts.items() if "adapters" in part) for plan in (few, many)]
    assert taken[0] < taken[1] <= 180
    assert few.adapters[0].steps == 440  # twenty passes over 1,400 images
    assert 100 < many.adapters[0].steps < 440


def test_more_time_is_more_and_longer_trials() -> None:
    plans = [
        make_plan(Speed(0.001, 0.001, 0.004, 1e-11), budget, **COUNTS, realign=0)
        for budget in (20.0, 60.0, 200.0, 2000.0)
    ]  # fmt: skip
    lengths = [(len(plan.tunings), max(plan.steps, default=0)) for plan in plans]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_captions_are_made_of_label_names_and_other_columns(train: Path, tmp_path: Path) -> None:
    rows = pq.read_table(train).drop_columns(["shape", "colour_shape"])
    kinds = ["red mug", "blue_star", "Fish", "heart", "ring", "moon", "drop", "kite"]
    rows = rows.set_column(1, "label", pa.array([kinds[row // 4] for row in range(len(rows))]))
    rows = rows.append_column("brand", pa.array([f"maker {row % 2}" for row in range(len(rows))]))
    rows = rows.append_column("code", pa.array(["4711"] * len(rows)))
    pq.write_table(rows, tmp_path / "named.parquet")
    table = read_table(tmp_path / "named.parquet").subset(range(16))
    texts = read_captions(write_pool(str(tmp_path / "named.parquet"), table, tmp_path))["caption"]
    assert {"a photo of a red mug.", "a photo of a blue star.", "a photo of a maker 1.", table.captions[0][0]} <= set(
        texts
    )
    assert "a beach at sunset" in list(texts)
    assert not {"a photo of a ring.", "a photo of a 4711."} & set(texts), "held-out classes name no captions"


def test_columns_that_are_named_do_not_hide_the_others(train: Path, tmp_path: Path) -> None:
    rows = pq.read_table(train).drop_columns(["shape", "colour_shape"]).rename_columns(
        ["photo", "kind", "captions", "split", "id"]
    )  # fmt: skip
    pq.write_table(rows.append_column("brand", pa.array(["acme"] * len(rows))), tmp_path / "named.parquet")
    columns = {"image": "photo", "label": "kind"}
    table = read_table(tmp_path / "named.parquet", columns=columns)
    texts = read_captions(write_pool(str(tmp_path / "named.parquet"), table, tmp_path, columns))["caption"]
    assert "a photo of a acme." in list(texts)


def test_numbers_are_no_names() -> None:
    assert label_names(["a/01.Red_mug", "a/02.ball"]) == {"a/01.Red_mug": "red mug", "a/02.ball": "ball"}
    assert label_names(["product-1", "product-2"]) == {}
    assert label_names(["1", "2"]) == {}


def test_a_trial_is_cut_at_the_budget_and_stays_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def endless(*_args: Any, **_settings: Any) -> str:
        started.append("tune")
        with progress("tune", 1_000_000, "images") as advance:
            while True:
                advance(1)

    def measured(trials: Trials, name: str, path: str, what: str, line: str, alpha: float) -> None:
        trials.tried[name], trials.paths[name] = Tried(name, what, line, alpha, 1.0, None, 1.0), path

    monkeypatch.setattr(improve_trials, "tune", endless)
    monkeypatch.setattr(Trials, "_measure", measured)
    plan = Plan(60.2, {}, [], list(TUNINGS[:1]), [1, 1], [2, 4], [], dict.fromkeys(STEP, 0.0), 0.0)

    def trials() -> Trials:
        ledger = Ledger(tmp_path / "time.json", plan.budget, reserve=60.0)
        data: Any = SimpleNamespace(train=range(9), captioned=None)
        return Trials("base", data, None, tmp_path, plan, ledger, tmp_path, 0.5, {})  # type: ignore[arg-type]

    first = trials()
    assert first.run() == "base"
    name = f"{TUNINGS[0].name}-2"
    assert first.ledger.left_out == [name]
    assert 0 < first.ledger.seconds[name] < 30, "the time for the test is left"
    assert trials().run() == "base"
    assert started == ["tune"], "what was cut is not begun again"
