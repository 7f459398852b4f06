"""Realign the text tower to a tuned, frozen image tower (Re-A; with GPR-FT before it, 2SFT).

Schall, Barthel, Hezel, Jung, "Optimizing CLIP Models for Image Retrieval with Maintained Joint-Embedding Alignment",
SISAP 2024. The images are embedded once; training then needs the text tower and the stored vectors, never the image
tower.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mcip import models
from mcip.core.artefacts import Artefact
from mcip.core.choices import Precision, TransformName
from mcip.core.device import pick_device
from mcip.core.errors import DataError
from mcip.core.progress import console
from mcip.data import read_table
from mcip.embeddings.encode import embed_images
from mcip.evaluation.validation import Validation, validation_table
from mcip.training import CHECKPOINTS, LOGS, EpochOrder, FitSettings, fit
from mcip.training.objectives.text_alignment import TextAlignment

KIND = "aligned"


def align(
    data: str,
    out: Path,
    model: str,
    *,
    split: str | None = None,
    validation: str | None = None,
    validation_split: str | None = None,
    unlocked_layers: int | None = None,
    steps: int | None = None,
    epochs: float = 1.0,
    batch_size: int = 1024,
    lr: float = 1e-5,
    min_lr_ratio: float = 0.0,
    warmup: int = 0,
    weight_decay: float = 0.2,
    max_grad_norm: float = 1.0,
    transform: TransformName = "model",
    grad_checkpointing: bool = False,
    validate_every: int = 0,
    patience: int = 0,
    checkpoint_every: int = 200,
    seed: int = 37,
    embed_batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> Path:
    """Realign a model's text tower to its frozen image tower, with InfoNCE on captioned images (Re-A).

    The image embeddings, and so everything image-to-image, stay exactly as they are. Killed at any moment and started
    again with the same command, it goes on from its last checkpoint and ends with the same weights.

    Args:
        data: The captioned images: CSV, parquet, webdataset tars or a hub name. One caption per image and step is
            drawn.
        out: The folder of the run: `model` in it is what open_clip loads.
        model: The model to realign: what `mcip.load` takes.
        split: Only the rows of this split.
        validation: A table to validate text to image on, or quick:FOLDER, a seeded subsample of benchmarks.
        validation_split: Only the rows of this split of `validation` (of `data`, if no other table is given).
        unlocked_layers: Train only this many of the last layer groups of the text tower; all of it if not given.
        steps: Training steps; if not given, `epochs` counts.
        epochs: Passes over the images.
        batch_size: Pairs per step; each is a negative of all the others.
        lr: Learning rate.
        min_lr_ratio: The cosine schedule ends at this share of the learning rate.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's weight decay, of matrices only.
        max_grad_norm: Largest gradient norm.
        transform: How the images are transformed: "model" or "paper".
        grad_checkpointing: Trade time for memory.
        validate_every: Steps between validations by text-to-image recall at 5; 0 validates never.
        patience: Stop after this many validations without a new best; 0 never stops early.
        checkpoint_every: Steps between checkpoints.
        seed: Seeds the order and the choice of captions.
        embed_batch_size: Images per forward pass when the images are embedded.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The folder of the realigned model, `out`/model.

    Raises:
        ConfigError: The parameters do not fit together.
        DataError: There are no captions.
        ArtefactError: `out` holds another run.
    """
    out = Path(out)
    where = pick_device(device)
    loaded = models.load(model, device=str(where))
    table = read_table(data, split=split)
    captions = table.captions
    captioned = [row for row, own in enumerate(captions) if own]
    if not captioned:
        raise DataError(f"No row of {table.name} has a caption: Re-A needs captioned images.")
    table = table.subset(captioned) if len(captioned) < len(table) else table
    judged = validation_table(data, split, validation, validation_split) if validate_every else None
    artefact = Artefact.begin(
        out,
        KIND,
        {
            "data": table.fingerprint, "model": loaded.fingerprint,
            "validation": judged.fingerprint if judged else None,
            "unlocked_layers": unlocked_layers, "steps": steps, "epochs": epochs, "batch_size": batch_size, "lr": lr,
            "min_lr_ratio": min_lr_ratio, "warmup": warmup, "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
            "transform": transform, "validate_every": validate_every, "patience": patience, "seed": seed,
            "precision": precision,
        },
    )  # fmt: skip
    if artefact.complete:
        console.print(f"{out} is complete: nothing to align.")
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        return out / "model"
    images = embed_images(
        table, loaded, out / "images", transform=transform, batch_size=embed_batch_size, workers=workers,
        precision=precision, max_unreadable=max_unreadable,
    )  # fmt: skip
    own = dict(zip(table.ids, table.captions, strict=True))
    order = EpochOrder(len(images), batch_size, seed)
    steps = steps if steps is not None else max(1, round(epochs * order.steps_per_epoch))
    judge = Validation(loaded, judged, "text", where, workers, precision) if judged else None
    objective = TextAlignment(
        loaded, images, [own[image] for image in images.ids], order, where, seed=seed, lr=lr, weight_decay=weight_decay,
        unlocked_layers=unlocked_layers, grad_checkpointing=grad_checkpointing, validation=judge,
    )  # fmt: skip
    settings = FitSettings(
        steps=steps, warmup=warmup, min_lr_ratio=min_lr_ratio, betas=(0.9, 0.98), eps=1e-6, max_grad_norm=max_grad_norm,
        seed=seed,
        precision=precision, device=device, checkpoint_every=checkpoint_every, validate_every=validate_every,
        patience=patience, unit="pairs", per_step=order.batch_size, title="re-a",
    )  # fmt: skip
    done = fit(objective, out / CHECKPOINTS, settings)
    objective.give_back()
    models.save(loaded, out / "model", made_by={"method": "re-a", **artefact.manifest["made_from"]})
    artefact.finish(
        leave_out=LOGS, steps_made=done.steps, best_step=done.best_step, best_score=done.best_score,
        validation=done.validation, pairs=len(images), unreadable=images.unreadable,
    )  # fmt: skip
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return out / "model"
