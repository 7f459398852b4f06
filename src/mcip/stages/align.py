"""Realign the text tower to a tuned, frozen image tower (Re-A; with GPR-FT before it, 2SFT).

Schall, Barthel, Hezel, Jung, "Optimizing CLIP Models for Image Retrieval with Maintained Joint-Embedding Alignment",
SISAP 2024. The images are embedded once; training then needs the text tower and the stored vectors, never the image
tower.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcip.core.choices import PairLoss, Precision, TransformName
from mcip.core.parameters import check_choices, recorded, settings_of
from mcip.core.processes import processes
from mcip.stages.inputs import ColumnsInput, DataInput, ModelInput, open_model

if TYPE_CHECKING:
    from mcip.models.saved import SavedModel

KIND = "aligned"


def align(
    data: DataInput,
    out: Path,
    model: ModelInput,
    *,
    split: str | None = None,
    columns: ColumnsInput | None = None,
    validation: str | None = None,
    validation_split: str | None = None,
    unlocked_layers: int | None = None,
    steps: int | None = None,
    epochs: float = 1.0,
    batch_size: int = 1024,
    chunk: int | None = None,
    loss: PairLoss = "auto",
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
    report_to: str = "tensorboard",
    seed: int = 37,
    embed_batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> SavedModel:
    """Realign a model's text tower to its frozen image tower, with a contrastive loss on captioned images (Re-A).

    The image embeddings, and so everything image-to-image, stay exactly as they are. Killed at any moment and started
    again with the same command, it resumes from its last checkpoint and ends with the same weights. Several processes,
    started by torchrun or accelerate launch, share the pairs of each step, which stay negatives of all the others.

    Args:
        data: The captioned images: CSV, parquet, webdataset tars or a hub name. One caption per image and step is
            drawn.
        out: The folder of the run: `model` in it is what open_clip loads.
        model: The model to realign: what `mcip.load` takes.
        split: Only the rows of this split.
        columns: Which of the columns of `data` and `validation` are the table's, for example image=path,label=category.
        validation: A table to validate text to image on, or quick:FOLDER, a seeded subsample of benchmarks.
        validation_split: Only the rows of this split of `validation` (of `data`, if no other table is given).
        unlocked_layers: Train only this many of the last layer groups of the text tower; all of it if not given.
        steps: Training steps; if not given, `epochs` counts.
        epochs: Passes over the images.
        batch_size: Pairs per step; each is a negative of all the others. The paper's is 32,768.
        chunk: Captions that pass through the text tower at a time with what backward needs. Those of a step are all
            embedded first, without that, and chunk by chunk again for their gradients, which are those of the whole
            step. Chosen by the device's memory if not given.
        loss: "infonce" as in the paper, "sigmoid" as SigLIP's, or "auto": the sigmoid loss for a model with a logit
            bias, which it keeps calibrated, InfoNCE for others.
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
        report_to: Where metrics are sent, beside metrics.jsonl: names out of tensorboard, wandb, trackio and mlflow
            with commas between them, or none.
        seed: Seeds the order and the choice of captions.
        embed_batch_size: Images per forward pass when the images are embedded.
        workers: Processes that decode images and tokenise captions; 0 does so in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The realigned model, a folder: `out`/model.

    Raises:
        ConfigError: The parameters do not fit together.
        DataError: There are no captions.
        ArtefactError: `out` holds another run.

    Example:
        >>> realigned = mcip.align("captioned.parquet", "runs/2sft", "runs/gpr-ft/model")  # doctest: +SKIP
    """
    check_choices(align, locals())
    team = processes()
    from mcip.core.artefacts import Artefact
    from mcip.core.device import pick_device
    from mcip.core.progress import console
    from mcip.data import read_table
    from mcip.data.selection import captioned
    from mcip.embeddings.caption_tokens import tokenize_captions
    from mcip.embeddings.encode import embed_images
    from mcip.evaluation.validation import Validation, validation_table
    from mcip.models.text_training import unlock_text_tower
    from mcip.stages.training import count_steps, finish_training, note_small_changes, trained_model
    from mcip.training import CHECKPOINTS, EpochOrder, FitSettings, fit
    from mcip.training.objectives import TextAlignment
    from mcip.training.objectives.text_alignment import automatic_chunk
    from mcip.training.trackers import tracker_names

    out = Path(out)
    tracker_names(report_to)
    target = pick_device(device)
    loaded = open_model(model, device=str(target))
    table = captioned(read_table(data, split=split, columns=columns), "Re-A")
    held_out = validation_table(data, split, validation, validation_split, columns) if validate_every else None
    made_from = recorded(
        align, locals(), ("columns",), data=table.fingerprint, model=loaded.fingerprint,
        validation=held_out.fingerprint if held_out else None,
    )  # fmt: skip
    with Artefact.begin(out, KIND, made_from) as artefact:
        if not artefact.complete:
            images = embed_images(
                table, loaded, out / "images", transform=transform, batch_size=embed_batch_size, workers=workers,
                precision=precision, max_unreadable=max_unreadable,
            )  # fmt: skip
            if images.unreadable:
                table = table.subset([row for row, image in enumerate(table.ids) if image not in images.unreadable])
            tokens = out / CHECKPOINTS / "tokens"
            captions = team.first_then_all(lambda: tokenize_captions(table, loaded, tokens, workers=workers))
            order = EpochOrder(len(images), batch_size, seed)
            steps = count_steps(steps, epochs, order)
            settings: FitSettings = settings_of(
                FitSettings, locals(), betas=(0.9, 0.98), eps=1e-6, unit="pairs", per_step=order.batch_size,
                title="re-a",
            )  # fmt: skip
            check = Validation(loaded, held_out, "text", target, workers, precision) if held_out else None
            chunk = chunk or automatic_chunk(
                loaded, captions, -(-order.batch_size // team.count), target, precision, grad_checkpointing
            )
            unlock_text_tower(loaded.clip, unlocked_layers, grad_checkpointing)
            objective = TextAlignment(
                loaded, images, captions, order, lr=lr, loss=loss, chunk=chunk, weight_decay=weight_decay, seed=seed,
                device=target, validation=check,
            )  # fmt: skip
            if not objective.calibrated:
                console.print(
                    "Note: InfoNCE trains the logit scale for a softmax and leaves the logit bias as it is, so the "
                    "model's sigmoid probabilities are not calibrated any more: --loss sigmoid keeps them.",
                    soft_wrap=True,
                )
            objective.unreadable |= images.unreadable
            with note_small_changes(objective.modules["text_tower"], steps, lr):
                done = fit(objective, out / CHECKPOINTS, settings)
            objective.give_back()
            finish_training(
                artefact, objective, loaded, done, "re-a", pairs=len(images), loss=objective.loss,
                calibrated=objective.calibrated,
            )  # fmt: skip
    return trained_model(out)
