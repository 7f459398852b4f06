"""What the stages that train a model do alike: the data they take, how long they train, how they end."""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mcip import models
from mcip.core.artefacts import MANIFEST, Artefact
from mcip.core.choices import Parallel
from mcip.core.device import computed_on
from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.files import atomic_write, read_json, write_json
from mcip.core.processes import processes
from mcip.core.progress import console
from mcip.core.shards import local, rows_of_shard, sharded_by_rows, whole
from mcip.data import Table
from mcip.embeddings import Embeddings
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.losses import ArcMargin, MultiCaptionArcMargin, ShardedArcMargin
from mcip.models.image_tower import drop_patches
from mcip.models.saved import SavedModel
from mcip.training import CHECKPOINTS, LOGS, EpochOrder, Fit, Objective
from mcip.training.low_rank import add_low_rank
from mcip.training.objectives import CaptionTerm, ImageTuning, LinearAdapter
from mcip.training.optimizer import freeze_parameters, freeze_statistics
from mcip.training.sampling import ClassBalancedOrder, SourceWeightedOrder, parse_weights

# Runs of fewer steps, and relative changes of the weights below this one, are worth a note.
_FEW_STEPS = 100
_SMALL_CHANGE = 1e-4
# Elements of each parameter by which its change is judged.
_SAMPLED = 4096
# Class centers that are drawn at once.
_DRAWN_ROWS = 1 << 16


def note_without_label(ids: list[str]) -> None:
    """Say how many images have no label, and so no part in the training."""
    if ids:
        console.print(f"{len(ids)} images without a label are left out; the manifest lists them.")


def caption_term(
    mined: MinedCaptions | None,
    ids: Sequence[str],
    model: models.Model,
    weight: float,
    margin: float,
    scale: float,
    smoothing: float,
) -> CaptionTerm | None:
    """The captions' part of the loss for images of these ids, where captions were mined."""
    if mined is None:
        return None
    return CaptionTerm.of(mined, ids, model, MultiCaptionArcMargin(margin, scale, smoothing), weight)


def prepare_tower(
    visual: Any,
    freeze: str | None,
    freeze_bn: bool,
    lora: int,
    patch_dropout: float,
    grad_checkpointing: bool,
    seed: int,
) -> None:
    """Change an image tower for its training; see `mcip.tune` for each of the options."""
    if freeze:
        freeze_parameters(visual, freeze)
    if freeze_bn:
        freeze_statistics(visual)
    if lora:
        add_low_rank(visual, lora, seed)
    if patch_dropout:
        drop_patches(visual, patch_dropout)
    if grad_checkpointing:
        visual.set_grad_checkpointing(True)


def class_loss(
    classes: int, dim: int, margin: float, scale: float, seed: int, centers: Tensor | None, *, sample: float,
    shard_from: int, device: torch.device,
) -> ArcMargin | ShardedArcMargin:  # fmt: skip
    """The class loss of `mcip.tune`: each process has its part of the centers from `shard_from` classes on."""
    sharded = processes().several and classes >= shard_from
    if sharded or sample < 1:
        return sharded_arc_margin(
            classes, dim, margin, scale, seed, centers, sample=sample, sharded=sharded, device=device
        )
    return arc_margin(classes, dim, margin, scale, seed, centers)


def open_embeddings(folder: Path, model: models.Model, tables: tuple[Table, ...]) -> Embeddings:
    """Open an artefact of `mcip embed` that was made of one of these tables by this model.

    Raises:
        ArtefactError: It was made otherwise.
    """
    found = Embeddings(folder)
    made_from = found.artefact.manifest["made_from"]
    if made_from.get("model") != model.fingerprint:
        raise ArtefactError(
            f"{folder} holds embeddings by {found.artefact.manifest.get('model')}, whose weights are not those of "
            f"{model.source}: embed the images with the model that is trained."
        )
    if made_from.get("what") != "images" or made_from.get("data") not in {part.images_fingerprint for part in tables}:
        raise ArtefactError(
            f"{folder} does not hold the embeddings of the images of {tables[0].name}: embed this table with "
            "`mcip embed` and the same --split, or leave --embeddings out."
        )
    if found.dim != model.embed_dim:
        raise ArtefactError(
            f"{folder} holds embeddings shortened to {found.dim} of {model.embed_dim} dimensions: embed the images "
            "without dim= and first= in --embedding."
        )
    return found


def arc_margin(classes: int, dim: int, margin: float, scale: float, seed: int, centers: Tensor | None) -> ArcMargin:
    """ArcMargin for a number of classes, its centers drawn from the seed where none are given."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        loss = ArcMargin(classes, dim, margin=margin, scale=scale)
    if centers is not None:
        loss.weight.data.copy_(centers)
    return loss


def sharded_arc_margin(
    classes: int, dim: int, margin: float, scale: float, seed: int, centers: Tensor | None, *, sample: float,
    sharded: bool, device: torch.device,
) -> ShardedArcMargin:  # fmt: skip
    """`arc_margin` with the same centers, but sampled, or each process with its part of them on the device."""
    rows = rows_of_shard(classes, processes()) if sharded else range(classes)
    part = random_centers(classes, dim, seed, rows) if centers is None else centers[rows.start : rows.stop]
    weight = sharded_by_rows(part, classes, device) if sharded else part.clone()
    return ShardedArcMargin(weight, margin=margin, scale=scale, sample=sample)


def random_centers(classes: int, dim: int, seed: int, rows: range) -> Tensor:
    """Some rows of the centers that `ArcMargin` draws from a seed, float32 of shape (rows, dim), in little memory."""
    bound = math.sqrt(6 / (classes + dim))
    generator = torch.Generator().manual_seed(seed)
    centers = torch.empty(len(rows), dim)
    for start in range(0, rows.stop, _DRAWN_ROWS):
        drawn = torch.empty(min(_DRAWN_ROWS, classes - start), dim).uniform_(-bound, bound, generator=generator)
        first, last = max(start, rows.start), min(start + len(drawn), rows.stop)
        if first < last:
            centers[first - rows.start : last - rows.start] = drawn[first - start : last - start]
    return centers


def save_classes(out: Path, objective: ImageTuning | LinearAdapter) -> None:
    """Write the names of the classes, in sorted order, and their trained centers."""
    team = processes()
    centers = whole(objective.tensors["class_loss.weight"], keep=team.first).cpu().contiguous()

    def write() -> None:
        with atomic_write(out / "class_centers.safetensors") as temporary:
            save_file({"weight": centers}, temporary)
        write_json(out / "classes.json", objective.classes)

    team.by_first(write)


@contextlib.contextmanager
def sharded_tower(model: models.Model, parallel: Parallel, device: torch.device) -> Iterator[None]:
    """Within the block the image tower lies in shards where several processes are to train it so (FSDP2).

    After it the first process has the whole tower again, with the trained weights.
    """
    team = processes()
    if parallel != "fsdp" or not team.several:
        yield
        return
    from mcip.training.distributed import shard_tower

    kept = copy.deepcopy(model.clip.visual).cpu() if team.first else None
    shard_tower(model.clip.visual, device)
    yield
    trained = whole(model.clip.visual.state_dict(), keep=team.first)
    if kept is not None:
        kept.load_state_dict(trained)
        model.clip.visual = kept


def make_order(
    table: Table, batch_size: int, seed: int, classes_per_batch: int, source_weights: str | None
) -> EpochOrder:
    """The order of the rows: epoch by epoch, or balanced by class, or weighted by source.

    Raises:
        ConfigError: The parameters do not fit together or the table.
    """
    if classes_per_batch and source_weights:
        raise ConfigError("classes_per_batch and source_weights cannot go together: leave one of them out.")
    if classes_per_batch:
        return ClassBalancedOrder(table.labels, batch_size, classes_per_batch, seed)
    if source_weights is None:
        return EpochOrder(len(table), batch_size, seed)
    if not table.sources:
        raise ConfigError(f"source_weights needs a column `source`, which {table.name} has not.{table.columns_hint}")
    return SourceWeightedOrder(table.sources, parse_weights(source_weights), batch_size, seed)


def count_steps(steps: int | None, epochs: float, order: EpochOrder) -> int:
    """The training steps: those that are given, or those of the epochs.

    Raises:
        ConfigError: `epochs` is not above 0.
    """
    if steps is None and not 0 < epochs < math.inf:
        raise ConfigError(f"epochs is {epochs}: it is a number of passes over the data, above 0.")
    return steps if steps is not None else max(1, round(epochs * order.steps_per_epoch))


def finish_training(
    artefact: Artefact, objective: Objective, model: models.Model, done: Fit, method: str, **facts: Any
) -> None:
    """Save the trained model as `model` in the artefact, and finish the artefact.

    What would make the run come out differently elsewhere is recorded as a fact, for the process that ended it: a run
    may resume with another number of threads.
    """
    made_by = {"method": method, **artefact.manifest["made_from"]}

    def save() -> None:
        models.save(model, artefact.folder / "model", made_by=made_by)

    processes().by_first(save)
    device, precision = objective.groups[0].parameters[0].device, artefact.manifest["made_from"]["precision"]
    artefact.finish(
        leave_out=LOGS, steps_made=done.steps, best_step=done.best_step, best_score=done.best_score,
        validation=done.validation, computed_on=computed_on(device, precision),
        unreadable=dict(sorted(objective.unreadable.items())), **facts,
    )  # fmt: skip


@contextlib.contextmanager
def note_small_changes(module: nn.Module, steps: int, lr: float) -> Iterator[None]:
    """Say before a run that it is short, and after it that the weights hardly moved.

    Args:
        module: What is trained in the block.
        steps: The steps of the run.
        lr: Its learning rate.
    """
    if steps < _FEW_STEPS:
        console.print(
            f"Note: {steps} steps are few. Models change noticeably from about {_FEW_STEPS} steps on: raise "
            "--epochs or --steps for more than a trial.",
            soft_wrap=True,
        )
    before = [local(parameter.detach()).flatten()[:_SAMPLED].cpu().clone() for parameter in module.parameters()]
    yield
    after = [local(parameter.detach()).flatten()[:_SAMPLED].cpu() for parameter in module.parameters()]
    moved = torch.cat(after).sub(torch.cat(before)).norm() / torch.cat(before).norm().clamp_min(1e-12)
    if moved < _SMALL_CHANGE:
        console.print(
            f"Note: {steps} steps with the learning rate {lr:g} moved the weights by {100 * float(moved):.2g} % only: "
            "the model is almost the one before. Raise --steps or --lr.",
            soft_wrap=True,
        )


def trained_model(out: Path) -> SavedModel:
    """The model of a finished run; what was only needed to resume it is removed."""
    processes().by_first(lambda: shutil.rmtree(out / CHECKPOINTS, ignore_errors=True))
    manifest = read_json(out / MANIFEST)
    names = ("steps_made", "best_step", "best_score", "validation", "unreadable")
    return SavedModel(out / "model", {name: manifest[name] for name in names})
