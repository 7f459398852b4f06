"""Adapt a model for retrieval by a matrix on its image embeddings, trained on embeddings that are there already.

A linear layer with class supervision on frozen embeddings is what ILIAS (Kordopatis-Zilos et al., CVPR 2025) found to
be the best cheap step for vision-language models. No tower is trained: it takes seconds to minutes on a CPU, whatever
the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcip.core.choices import CenterInit, Precision
from mcip.core.errors import ConfigError, DataError
from mcip.core.parameters import check_choices, recorded, settings_of
from mcip.core.processes import check_one_process
from mcip.stages.inputs import CaptionsInput, DataInput, ModelInput, open_captions, open_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mcip.data.table import Table
    from mcip.embeddings.store import Embeddings
    from mcip.models.saved import SavedModel

KIND = "adapted"
_NOT_FOLDED = (
    "The image tower does not end in a linear projection: the model's folder carries the matrix, which mcip.load "
    "applies and open_clip does not."
)


def adapt(
    data: DataInput,
    out: Path,
    model: ModelInput,
    *,
    captions: CaptionsInput | None = None,
    embeddings: Path | None = None,
    split: str | None = None,
    validation: str | None = None,
    validation_split: str | None = None,
    caption_weight: float = 0.25,
    margin: float = 0.1,
    scale: float = 30.0,
    smoothing: float = 0.0,
    keep: float = 1.0,
    steps: int = 600,
    batch_size: int = 256,
    lr: float = 2e-3,
    center_init: CenterInit = "class-means",
    center_lr_factor: float = 10.0,
    min_lr_ratio: float = 0.1,
    warmup: int = 0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    validate_every: int = 0,
    patience: int = 0,
    select: str = "mean",
    checkpoint_every: int = 500,
    report_to: str = "tensorboard",
    seed: int = 37,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> SavedModel:
    """Adapt a model for image-to-image retrieval by a matrix behind its image tower; no tower is trained.

    An embedding x becomes x M, normalised. M is trained on stored embeddings with ArcMargin on the class labels, with
    the caption loss of MCIP where captions were mined, and with a penalty on leaving the model's own embeddings. It is
    folded into the image tower's last projection where there is one; elsewhere the model carries it as
    `adapter.safetensors`, which `mcip.load` applies and open_clip does not. An index is brought to the adapted model by
    `mcip index --adapter`. Killed at any moment and started again with the same command, it resumes.

    Args:
        data: The labelled images: a folder of class folders, CSV, parquet, webdataset tars or a hub name.
        out: The folder of the run: `model` in it is the adapted model, `adapter.safetensors` the matrix.
        model: The model to adapt: what `mcip.load` takes.
        captions: The artefact that `mcip mine` wrote for these images; without it there is no caption loss.
        embeddings: An artefact that `mcip embed` made of these images with this model; they are embedded if not given.
        split: Only the rows of this split.
        validation: A table to validate on: image to image by its labels, text to image by its captions; or
            quick:FOLDER, a seeded subsample of the benchmarks in a folder.
        validation_split: Only the rows of this split of `validation` (of `data`, if no other table is given).
        caption_weight: The captions' share w of the loss.
        margin: The margin in radians, of classes and of captions.
        scale: The scale of the cosines in both losses.
        smoothing: Weight of the reference's undocumented extra term in the caption loss (0.1 there).
        keep: Weight of the penalty on 1 - cos between the new and the old embedding: more keeps more of the text.
        steps: Training steps.
        batch_size: Images per step.
        lr: Learning rate of the matrix.
        center_init: The class centers start at the "class-means" of the embeddings, or at random.
        center_lr_factor: The class centers learn this many times faster.
        min_lr_ratio: The cosine schedule ends at this share of the learning rates.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's weight decay of the class centers; the matrix has none.
        max_grad_norm: Largest gradient norm, of the matrix and of the class centers, each by itself.
        validate_every: Steps between validations; 0 validates never. The held-out images are encoded once.
        patience: Stop after this many validations without a new best; 0 never stops early.
        select: The validation score by which the best matrix is kept: "i2i_map", "t2i_r5" or their "mean".
        checkpoint_every: Steps between checkpoints.
        report_to: Where metrics are sent, beside metrics.jsonl: names out of tensorboard, wandb, trackio and mlflow
            with commas between them, or none.
        seed: Seeds the class centers and the order.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The adapted model, a folder: `out`/model.

    Raises:
        ConfigError: The parameters do not fit together.
        DataError: There are no labels, or only one class.
        ArtefactError: The captions or embeddings do not fit the images or the model, or `out` holds another run.

    Example:
        >>> adapted = mcip.adapt("products.csv", "runs/adapter", "ViT-B-16/openai")  # doctest: +SKIP
        >>> model = adapted.load()  # doctest: +SKIP
    """
    check_choices(adapt, locals())
    check_one_process()
    _check(caption_weight, keep)
    import numpy as np

    from mcip.core.artefacts import Artefact
    from mcip.core.device import pick_device
    from mcip.core.progress import console
    from mcip.data import read_table
    from mcip.data.selection import labelled
    from mcip.embeddings.class_means import means_of_codes
    from mcip.embeddings.encode import embed_images
    from mcip.evaluation.validation import Validation, validation_table
    from mcip.models.adapter import apply_adapter
    from mcip.models.carried import ADAPTER_FILE, write_adapter
    from mcip.stages.training import (
        arc_margin,
        caption_term,
        finish_training,
        note_small_changes,
        note_without_label,
        open_embeddings,
        save_classes,
        trained_model,
    )  # fmt: skip
    from mcip.training import CHECKPOINTS, EpochOrder, FitSettings, fit
    from mcip.training.objectives import LinearAdapter

    out, target = Path(out), pick_device(device)
    loaded = open_model(model, device=str(target))
    whole = read_table(data, split=split)
    table, without_label = labelled(whole)
    mined = None if captions is None else open_captions(captions)
    stored = None if embeddings is None else open_embeddings(embeddings, loaded, (whole, table))
    held_out = validation_table(data, split, validation, validation_split) if validate_every else None
    made_from = recorded(
        adapt, locals(), data=table.fingerprint, model=loaded.fingerprint,
        embeddings=stored.artefact.manifest["made_from"] if stored else None,
        captions=mined.fingerprint if mined else None, validation=held_out.fingerprint if held_out else None,
    )  # fmt: skip
    settings: FitSettings = settings_of(FitSettings, locals(), per_step=min(batch_size, len(table)), title="adapt")
    with Artefact.begin(out, KIND, made_from) as artefact:
        if not artefact.complete:
            note_without_label(without_label)
            images = stored or embed_images(
                table, loaded, out / "images", workers=workers, precision=precision, max_unreadable=max_unreadable
            )
            ids, labels, vectors = _labelled_vectors(images, table)
            classes, codes = np.unique(labels, return_inverse=True)
            centers = means_of_codes(vectors, codes) if center_init == "class-means" else None
            objective = LinearAdapter(
                vectors, labels, EpochOrder(len(ids), batch_size, seed),
                arc_margin(len(classes), images.dim, margin, scale, seed, centers), lr=lr,
                class_lr=lr * center_lr_factor, weight_decay=weight_decay, keep=keep, device=target,
                captions=caption_term(mined, ids, loaded, caption_weight, margin, scale, smoothing),
                validation=Validation(loaded, held_out, "adapter", target, workers, precision) if held_out else None,
            )  # fmt: skip
            labelled_ids = set(table.ids)
            objective.unreadable |= {name: why for name, why in images.unreadable.items() if name in labelled_ids}
            with note_small_changes(objective.layer, steps, lr):
                done = fit(objective, out / CHECKPOINTS, settings)
            save_classes(out, objective)
            write_adapter(out / ADAPTER_FILE, objective.matrix)
            base = str(loaded.folder.absolute()) if loaded.folder is not None else loaded.source
            folded = apply_adapter(loaded, objective.matrix)
            if not folded:
                console.print(_NOT_FOLDED)
            finish_training(
                artefact, objective, loaded, done, "adapt", classes=len(objective.classes),
                without_label=without_label, base=base, folded=folded,
            )  # fmt: skip
    return trained_model(out)


def _labelled_vectors(images: Embeddings, table: Table) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """The ids, labels and embeddings of the images that have a label and could be read."""
    label_of = dict(zip(table.ids, table.labels, strict=True))
    rows = [row for row, name in enumerate(images.ids) if name in label_of]
    if not rows:
        raise DataError(f"None of the {len(table)} images of {table.name} can be read.")
    ids = [images.ids[row] for row in rows]
    return ids, [str(label_of[name]) for name in ids], images.take(rows)


def _check(caption_weight: float, keep: float) -> None:
    if not 0 < caption_weight < 1:
        raise ConfigError(f"caption_weight is {caption_weight}: it is a share between 0 and 1.")
    if keep < 0:
        raise ConfigError(f"keep is {keep}: the weight of a penalty is 0 or more.")
