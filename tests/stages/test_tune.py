"""Tuning: what is trained and what is not, what is kept, and what is refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.files import read_json
from mcip.data import Pixels, read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.evaluation.validation import Validation
from mcip.losses import ArcMargin, MultiCaptionArcMargin
from mcip.models import Model
from mcip.models.image_tower import drop_patches
from mcip.models.saved import SavedModel
from mcip.stages.training import arc_margin
from mcip.stages.tune import tune
from mcip.training import EpochOrder
from mcip.training.objectives import CaptionTerm, ImageTuning

QUICK: dict[str, Any] = {"steps": 3, "batch_size": 8, "lr": 1e-3, "device": "cpu"}


def weights(folder: Path | SavedModel) -> dict[str, torch.Tensor]:
    return load_file(folder / "open_clip_model.safetensors")


@pytest.mark.parametrize("method", ["gpr-ft", "mcip"])
def test_only_the_image_tower_and_the_centers_change(
    method: Any, train: Path, base: Path, mined: Path, tmp_path: Path
) -> None:
    captions = mined if method == "mcip" else None
    model = tune(str(train), tmp_path / "run", str(base), method=method, captions=captions, **QUICK)
    before, after = weights(base), weights(model)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        same = torch.equal(tensor, after[name])
        assert same == (not name.startswith("visual.")), name
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "class_centers.safetensors", "classes.json", "manifest.json", "metrics.jsonl", "model", "tensorboard",
    ]  # fmt: skip
    classes = read_json(tmp_path / "run" / "classes.json")
    assert classes == sorted({label for label in read_table(train).labels if label})
    assert load_file(tmp_path / "run" / "class_centers.safetensors")["weight"].shape == (8, 16)
    assert models.load(model).fingerprint == read_json(model / "manifest.json")["fingerprint"]


def objective(base: Path, train: Path, mined: Path | None, batch_size: int = 6, **changes: Any) -> ImageTuning:
    model, table = models.load(base), read_table(train)
    images = Pixels(table, model.transform("paper", train=True), cache_gb=1.0, max_unreadable=0.1)
    order = EpochOrder(len(table), batch_size, 3)
    class_loss = ArcMargin(8, 16, margin=0.2, scale=20.0)
    loss = MultiCaptionArcMargin(margin=0.2, scale=20.0, smoothing=0.1)
    captions = CaptionTerm.of(MinedCaptions(mined), table.ids, model, loss, 0.3) if mined else None
    return ImageTuning(model, images, order, class_loss, captions=captions, **{"lr": 1e-4, "class_lr": 1e-2, **changes})


def test_the_loss_is_the_weighted_sum_of_both(base: Path, train: Path, mined: Path) -> None:
    tuning = objective(base, train, mined)
    pixels, rows = next(tuning.batches(range(1)))
    found = tuning.losses((pixels, rows), torch.Generator().manual_seed(1))

    model, table, captions = models.load(base), read_table(train), MinedCaptions(mined)
    finished = model.transform("paper", train=True).finish(pixels, torch.Generator().manual_seed(1))
    images = model.embed_pixels(finished)
    classes = sorted({label for label in table.labels if label})
    labels = torch.tensor([classes.index(table.labels[row] or "") for row in rows])
    centers = ArcMargin(8, 16, 0.2, 20.0)
    centers.load_state_dict({"weight": tuning.tensors["class_loss.weight"]})
    mined_for = {row["id"]: row["captions"] for row in captions.images.to_pylist()}
    captions_by_row = [set(mined_for[table.ids[row]]) for row in rows]
    known = sorted(set().union(*captions_by_row))
    targets = torch.tensor([[caption in mine for caption in known] for mine in captions_by_row])
    texts = model.encode([captions.captions[caption] for caption in known], convert_to_tensor=True)
    by_class = centers(images, labels)
    by_caption = MultiCaptionArcMargin(0.2, 20.0, 0.1)(images, texts, targets)
    torch.testing.assert_close(found["class_loss"], by_class)
    torch.testing.assert_close(found["caption_loss"], by_caption)
    torch.testing.assert_close(found["loss"], 0.7 * by_class + 0.3 * by_caption)


def test_two_groups_with_their_own_learning_rates(base: Path, train: Path) -> None:
    tuning = objective(base, train, None)
    tower, centers = tuning.groups
    assert (tower.lr, centers.lr, tower.weight_decay, centers.weight_decay) == (1e-4, 1e-2, 0.01, 0.01)
    assert {id(p) for p in tower.parameters} == {id(p) for p in tuning.modules["image_tower"].parameters()}
    assert [p.shape for p in centers.parameters] == [(8, 16)]
    assert set(tuning.losses(next(tuning.batches(range(1))), torch.Generator())) == {"loss", "class_loss"}


def test_the_centers_depend_on_the_seed_alone() -> None:
    def centers(seed: int) -> torch.Tensor:
        return arc_margin(8, 16, 0.1, 30.0, seed, None).weight.detach()

    torch.manual_seed(1)
    first = centers(3)
    torch.manual_seed(2)
    assert torch.equal(centers(3), first)
    assert not torch.equal(centers(4), first)


def test_patch_dropout_and_grad_checkpointing(train: Path, base: Path, tmp_path: Path) -> None:
    plain = tune(str(train), tmp_path / "plain", str(base), method="gpr-ft", **QUICK)
    saving = tune(str(train), tmp_path / "saving", str(base), method="gpr-ft", grad_checkpointing=True, **QUICK)
    dropping = tune(str(train), tmp_path / "dropping", str(base), method="gpr-ft", patch_dropout=0.5, **QUICK)
    key = "visual.conv1.weight"
    torch.testing.assert_close(weights(plain)[key], weights(saving)[key])
    assert not torch.allclose(weights(plain)[key], weights(dropping)[key])
    with pytest.raises(ConfigError, match="patch_dropout needs a vision transformer"):
        drop_patches(torch.nn.Linear(1, 1), 0.5)


def test_bf16_trains_float32_weights(train: Path, base: Path, tmp_path: Path) -> None:
    model = tune(str(train), tmp_path / "run", str(base), method="gpr-ft", precision="bf16", **QUICK)
    assert {tensor.dtype for tensor in weights(model).values()} == {torch.float32}
    assert not torch.equal(weights(model)["visual.proj"], weights(base)["visual.proj"])


def test_a_batch_larger_than_the_data(train: Path, base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tune(str(train), run, str(base), method="gpr-ft", epochs=2, batch_size=500, device="cpu")
    assert read_json(run / "manifest.json")["steps_made"] == 2


def test_validation_selects_the_best_weights_and_stops_early(
    train: Path, val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.2, 0.5, 0.4, 0.3, 0.9, 0.9])
    projections: list[torch.Tensor] = []

    def pretend(self: Validation) -> dict[str, float]:
        projections.append(self.model.clip.visual.proj.detach().clone())
        return {"i2i_map": next(scores), "t2i_r5": 0.5}

    monkeypatch.setattr(Validation, "__call__", pretend)
    model = tune(
        str(train), tmp_path / "run", str(base), method="gpr-ft", validation=str(val), validate_every=2, patience=2,
        select="i2i_map", **{**QUICK, "steps": 40},
    )  # fmt: skip
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert (manifest["best_step"], manifest["best_score"], manifest["steps_made"]) == (4, 0.5, 8)
    assert list(manifest["validation"]) == ["0", "2", "4", "6", "8"]
    assert torch.equal(weights(model)["visual.proj"], projections[2])
    assert not torch.equal(projections[2], projections[4])


def test_validation_scores_are_those_of_the_metrics(train: Path, val: Path, base: Path, tmp_path: Path) -> None:
    tune(str(train), tmp_path / "run", str(base), method="gpr-ft", validation=str(val), validate_every=3, **QUICK)
    found = read_json(tmp_path / "run" / "manifest.json")["validation"]
    tuned = models.load(base)
    expected = Validation(tuned, read_table(val), "both", torch.device("cpu"))()
    assert found["0"] == pytest.approx(expected)
    assert set(expected) == {"i2i_map", "t2i_r5"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "mcip"}, "needs mined captions"),
        ({"method": "gpr-ft", "captions": Path("x")}, "GPR-FT uses no captions"),
        ({"method": "gpr-ft", "caption_weight": 1.5}, "caption_weight is 1.5"),
        ({"method": "gpr-ft", "batch_size": 0}, "batch_size is 0"),
        ({"method": "gpr-ft", "steps": 0}, "0 steps to train"),
        ({"method": "gpr-ft", "checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"method": "gpr-ft", "validate_every": 2}, "nothing to validate on"),
        ({"method": "gpr-ft", "validate_every": 2, "validation_split": "train"}, "would be trained on as well"),
        ({"method": "gpr-ft", "margin": 4.0}, "margin is 4.0"),
    ],
)
def test_wrong_parameters(wrong: dict[str, Any], message: str, train: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(str(train), tmp_path / "run", str(base), **{**QUICK, **wrong})
    # What was wrong does not stand in the way of what is right.
    tune(str(train), tmp_path / "run", str(base), **{**QUICK, "method": "gpr-ft", "steps": 1})


def test_captions_of_other_images_are_refused(val: Path, base: Path, mined: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no captions for 15 of 15 images"):
        tune(str(val), tmp_path / "run", str(base), captions=mined, **QUICK)


def test_another_run_in_the_same_folder_is_refused(train: Path, base: Path, mined: Path, tmp_path: Path) -> None:
    tune(str(train), tmp_path / "run", str(base), method="gpr-ft", **QUICK)
    with pytest.raises(ArtefactError, match=r"\(lr: 0\.001 there, 0\.1 now; seed: 37 there, 1 now\)"):
        tune(str(train), tmp_path / "run", str(base), method="gpr-ft", **{**QUICK, "lr": 0.1, "seed": 1})
    with pytest.raises(ArtefactError, match="method: 'gpr-ft' there, 'mcip' now"):
        tune(str(train), tmp_path / "run", str(base), captions=mined, **QUICK)


def test_it_says_what_is_few_and_how_long_it_takes(
    train: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(train, tmp_path / "a", base, method="gpr-ft", steps=9, batch_size=4, device="cpu")
    said = capsys.readouterr().err
    assert "Note: 9 steps are few" in said
    assert re.search(r"gpr-ft: about \d+ s for the 3 steps left", said)
    assert "moved the weights by" in said
    assert said.index("are few") < said.index("steps left") < said.index("moved the weights")
    tune(train, tmp_path / "b", base, method="gpr-ft", steps=100, batch_size=4, lr=1e-3, device="cpu")
    said = capsys.readouterr().err
    assert "Note:" not in said
    assert re.search(r"about \d+ s for the 94 steps left", said)


def test_captions_are_embedded_on_the_device_of_the_training(
    train: Path, base: Path, mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[str] = []
    devices: list[str] = ["cpu"]
    moved, embed = Model.on, MinedCaptions.text_embeddings

    @contextlib.contextmanager
    def on(self: Model, device: Any) -> Iterator[None]:
        devices.append(f"the one of the training: {device}")
        with moved(self, device):
            yield
        devices.pop()

    def text_embeddings(self: MinedCaptions, model: Model) -> Any:
        where.append(devices[-1])
        return embed(self, model)

    monkeypatch.setattr(Model, "on", on)
    monkeypatch.setattr(MinedCaptions, "text_embeddings", text_embeddings)
    tune(train, tmp_path / "a", base, captions=mined, steps=1, batch_size=4, device="cpu")
    assert where == ["the one of the training: cpu"]
