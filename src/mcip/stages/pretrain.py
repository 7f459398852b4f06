"""Pretrain a small CLIP model from scratch on captioned images, for worlds where no pretrained one can be had.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021. This is how the
base models of the demo and of the examples are made; large models are better pretrained with open_clip itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from mcip import models
from mcip.core.artefacts import Artefact, read_json
from mcip.core.choices import Precision, TransformName
from mcip.core.device import pick_device
from mcip.core.errors import DataError
from mcip.core.progress import console
from mcip.data import read_table
from mcip.evaluation.validation import Validation
from mcip.training import CHECKPOINTS, LOGS, EpochOrder, FitSettings, fit
from mcip.training.objectives.contrastive import ContrastivePretraining

KIND = "pretrained"


def pretrain(
    data: str,
    out: Path,
    config: Path,
    *,
    split: str | None = None,
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
    validate_every: int = 200,
    checkpoint_every: int = 200,
    seed: int = 0,
    workers: int = 0,
    cache_gb: float = 4.0,
    device: str = "auto",
    precision: Precision = "auto",
) -> Path:
    """Train both towers from scratch with InfoNCE on images and their captions; resumable like the stages.

    Args:
        data: The captioned images.
        out: The folder of the run: `model` in it is what open_clip loads.
        config: A folder with an `open_clip_config.json`.
        split: Only the rows of this split.
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
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        seed: Seeds the weights, the order, the augmentation and the choice of captions.
        workers: Processes that decode images; 0 decodes in this one.
        cache_gb: Memory for decoded images, in 10^9 bytes.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.

    Returns:
        The folder of the model, `out`/model.
    """
    out = Path(out)
    where = pick_device(device)
    table = read_table(data, split=split)
    captioned = [row for row, own in enumerate(table.captions) if own]
    if not captioned:
        raise DataError(f"No row of {table.name} has a caption: pretraining needs captioned images.")
    table = table.subset(captioned) if len(captioned) < len(table) else table
    judged = read_table(validation or data, split=validation_split) if validation or validation_split else None
    artefact = Artefact.begin(
        out,
        KIND,
        {
            "config": read_json(Path(config) / "open_clip_config.json"), "data": table.fingerprint,
            "validation": judged.fingerprint if judged else None,
            "steps": steps, "batch_size": batch_size, "lr": lr, "warmup": warmup, "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm, "transform": transform, "seed": seed, "precision": precision,
        },
    )  # fmt: skip
    if artefact.complete:
        console.print(f"{out} is complete: nothing to pretrain.")
        return out / "model"
    model = models.create(str(config), seed)
    forget_unused_tokens(model, vocabulary or [caption for own in table.captions for caption in own])
    order = EpochOrder(len(table), batch_size, seed)
    objective = ContrastivePretraining(
        model, table, order, where, transform, lr=lr, weight_decay=weight_decay, seed=seed, workers=workers,
        cache_gb=cache_gb, validation=Validation(model, judged, "both", where, workers, precision) if judged else None,
    )  # fmt: skip
    settings = FitSettings(
        steps=steps, warmup=warmup, min_lr_ratio=0.0, betas=(0.9, 0.98), eps=1e-6, max_grad_norm=max_grad_norm,
        seed=seed,
        precision=precision, device=device, checkpoint_every=checkpoint_every,
        validate_every=validate_every if judged else 0, select="t2i_r5", unit="pairs", per_step=order.batch_size,
        title="pretrain",
    )  # fmt: skip
    done = fit(objective, out / CHECKPOINTS, settings)
    models.save(model, out / "model", made_by={"method": "pretraining", **artefact.manifest["made_from"]})
    artefact.finish(
        leave_out=LOGS, steps_made=done.steps, best_step=done.best_step, validation=done.validation,
        unreadable=dict(sorted(objective.unreadable.items())),
    )  # fmt: skip
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return out / "model"


def forget_unused_tokens(model: models.Model, texts: list[str]) -> None:
    """Zero the embeddings of the tokens that `texts` do not use: they are never trained, and zeros pack to nothing."""
    embedding = model.clip.get_submodule("token_embedding")
    assert isinstance(embedding, nn.Embedding)
    used = torch.zeros(embedding.num_embeddings, dtype=torch.bool)
    for start in range(0, len(texts), 4096):
        used[model.tokenizer(texts[start : start + 4096]).unique()] = True
    with torch.no_grad():
        embedding.weight[~used] = 0.0
