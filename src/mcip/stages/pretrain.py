"""Pretrain a small CLIP model from scratch on captioned images, for worlds where no pretrained one can be had.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021. This is how the
base models of the demo and of the examples are made; large models are better pretrained with open_clip itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcip.core.choices import Decode, Precision, TransformName
from mcip.core.parameters import check_choices, recorded, settings_of
from mcip.core.processes import check_one_process
from mcip.stages.inputs import ColumnsInput, DataInput

if TYPE_CHECKING:
    from mcip.models.saved import SavedModel

KIND = "pretrained"


def pretrain(
    data: DataInput,
    out: Path,
    config: Path,
    *,
    split: str | None = None,
    columns: ColumnsInput | None = None,
    validation: str | None = None,
    validation_split: str | None = None,
    vocabulary: list[str] | None = None,
    steps: int = 2000,
    batch_size: int = 256,
    lr: float = 1e-3,
    warmup: int = 100,
    weight_decay: float = 0.1,
    max_grad_norm: float = 1.0,
    transform: TransformName = "model",
    decode: Decode = "fast",
    validate_every: int = 200,
    checkpoint_every: int = 200,
    report_to: str = "tensorboard",
    seed: int = 0,
    workers: int = 0,
    cache_gb: float = 4.0,
    device: str = "auto",
    precision: Precision = "auto",
) -> SavedModel:
    """Train both towers from scratch with InfoNCE on images and their captions; resumable like the stages.

    Args:
        data: The captioned images.
        out: The folder of the run: `model` in it is what open_clip loads.
        config: A folder with an `open_clip_config.json`.
        split: Only the rows of this split.
        columns: Which of the columns of `data` and `validation` are the table's, for example image=path,label=category.
        validation: A table to validate on.
        validation_split: Only the rows of this split of `validation` (of `data`, if no other table is given).
        vocabulary: Texts with every word that matters: the embeddings of tokens that occur in none of them are set to
            zero, where they stay, so that the weights pack well. Everything in `data` counts if not given.
        steps: Training steps.
        batch_size: Pairs per step.
        lr: Learning rate.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's weight decay, of matrices only.
        max_grad_norm: Largest gradient norm.
        transform: How images are augmented: "model" (flip) or "paper" (crop, flip, colour jitter).
        decode: "fast" reads JPEGs several times faster, to almost the same pixels; "exact" to open_clip's, to the bit.
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        report_to: Where metrics are sent, beside metrics.jsonl: names out of tensorboard, wandb, trackio and mlflow
            with commas between them, or none.
        seed: Seeds the weights, the order, the augmentation and the choice of captions.
        workers: Processes that decode images; 0 decodes in this one.
        cache_gb: Memory for decoded images, in 10^9 bytes.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.

    Returns:
        The model, a folder: `out`/model.
    """
    check_choices(pretrain, locals())
    check_one_process()
    from mcip import models
    from mcip.core.artefacts import Artefact
    from mcip.core.device import pick_device
    from mcip.core.files import read_json
    from mcip.data import Pixels, read_table
    from mcip.data.selection import captioned
    from mcip.evaluation.validation import Validation
    from mcip.models.text_training import forget_unused_tokens
    from mcip.stages.training import finish_training, trained_model
    from mcip.training import CHECKPOINTS, EpochOrder, FitSettings, fit
    from mcip.training.objectives import ContrastivePretraining

    out = Path(out)
    table = captioned(read_table(data, split=split, columns=columns), "pretraining")
    held_out = read_table(validation or data, validation_split, columns) if validation or validation_split else None
    order = EpochOrder(len(table), batch_size, seed)
    settings: FitSettings = settings_of(
        FitSettings, {**locals(), "validate_every": validate_every if held_out else 0}, betas=(0.9, 0.98), eps=1e-6,
        select="t2i_r5", unit="pairs", per_step=order.batch_size, title="pretrain",
    )  # fmt: skip
    made_from = recorded(
        pretrain, locals(), ("columns",), data=table.fingerprint,
        config=read_json(Path(config) / "open_clip_config.json"), validation=held_out.fingerprint if held_out else None,
    )  # fmt: skip
    with Artefact.begin(out, KIND, made_from) as artefact:
        if not artefact.complete:
            target = pick_device(device)
            model = models.create(str(config), seed)
            forget_unused_tokens(model, vocabulary or [caption for captions in table.captions for caption in captions])
            prepared = model.transform(transform, train=True, decode=decode)
            images = Pixels(table, prepared, workers=workers, cache_gb=cache_gb)
            objective = ContrastivePretraining(
                model, images, order, lr=lr, weight_decay=weight_decay, seed=seed, device=target,
                validation=Validation(model, held_out, "both", target, workers, precision) if held_out else None,
            )  # fmt: skip
            done = fit(objective, out / CHECKPOINTS, settings)
            finish_training(artefact, objective, model, done, "pretraining")
    return trained_model(out)
