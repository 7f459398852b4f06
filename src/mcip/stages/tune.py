"""Tune the image tower for retrieval: GPR-FT (class labels) or MCIP (class labels and mined captions).

Schall, Barthel, Hezel, Jung, "Optimizing CLIP Models for Image Retrieval with Maintained Joint-Embedding Alignment",
SISAP 2024. The text tower stays locked and is not even on the device: captions are looked up by id among embeddings
computed once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcip.core.choices import CenterInit, Compile, Decode, Method, OptimizerName, Parallel, Precision, TransformName
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices, recorded, settings_of
from mcip.core.processes import processes
from mcip.stages.inputs import CaptionsInput, ColumnsInput, DataInput, ModelInput, open_captions, open_model
from mcip.stages.tune_checks import check_graphs, check_method, check_options

if TYPE_CHECKING:
    from mcip.models.saved import SavedModel

KIND = "tuned"


def tune(
    data: DataInput,
    out: Path,
    model: ModelInput,
    *,
    method: Method = "mcip",
    captions: CaptionsInput | None = None,
    embeddings: Path | None = None,
    split: str | None = None,
    columns: ColumnsInput | None = None,
    validation: str | None = None,
    validation_split: str | None = None,
    caption_weight: float = 0.25,
    margin: float = 0.1,
    scale: float = 30.0,
    smoothing: float = 0.0,
    keep: float = 0.0,
    steps: int | None = None,
    epochs: float = 1.0,
    batch_size: int = 128,
    accumulate: int = 1,
    classes_per_batch: int = 0,
    source_weights: str | None = None,
    optimizer: OptimizerName = "adamw",
    lr: float = 1e-6,
    center_init: CenterInit = "random",
    center_lr_factor: float = 100.0,
    center_sample: float = 1.0,
    min_lr_ratio: float = 0.1,
    warmup: int = 0,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
    max_loss_ratio: float = 4.0,
    layer_decay: float = 1.0,
    freeze: str | None = None,
    freeze_bn: bool = False,
    lora: int = 0,
    ema: float = 0.0,
    transform: TransformName = "paper",
    decode: Decode = "fast",
    patch_dropout: float = 0.0,
    grad_checkpointing: bool = False,
    compile: Compile = "auto",
    validate_every: int = 0,
    patience: int = 0,
    select: str = "mean",
    checkpoint_every: int = 200,
    report_to: str = "tensorboard",
    seed: int = 37,
    workers: int = 0,
    cache_gb: float = 2.0,
    device: str = "auto",
    precision: Precision = "auto",
    fp8: bool = False,
    max_unreadable: float = 0.01,
    parallel: Parallel = "ddp",
    shard_centers_from: int = 100_000,
) -> SavedModel:
    """Tune a model's image tower for image-to-image retrieval, its text tower locked.

    GPR-FT minimises ArcMargin on the class labels; MCIP minimises (1 - w) ArcMargin + w Multi-Caption-ArcMargin on the
    captions that `mcip mine` found, w being `caption_weight`. Killed at any moment and started again with the same
    command, it resumes from its last checkpoint and ends with the same weights. Several processes, started by torchrun
    or accelerate launch, share the work of each batch.

    Args:
        data: The labelled images: a folder of class folders, CSV, parquet, webdataset tars or a hub name.
        out: The folder of the run: `model` in it is what open_clip loads.
        model: The model to tune: what `mcip.load` takes.
        method: "gpr-ft" or "mcip".
        captions: The artefact that `mcip mine` wrote for these images; MCIP needs it.
        embeddings: An artefact that `mcip embed` made of these images with this model, for the class means; they are
            embedded if not given.
        split: Only the rows of this split.
        columns: Which of the columns of `data` and `validation` are the table's, for example image=path,label=category.
        validation: A table to validate on: image to image by its labels, text to image by its captions; or
            quick:FOLDER, a seeded subsample of the benchmarks in a folder.
        validation_split: Only the rows of this split of `validation` (of `data`, if no other table is given).
        caption_weight: The captions' share w of the loss.
        margin: The margin in radians, of classes and of captions.
        scale: The scale of the cosines in both losses.
        smoothing: Weight of the reference's undocumented extra term in the caption loss (0.1 there).
        keep: Weight of a penalty on 1 - cos between the embedding of an image by the tower in training and by the model
            as it was, of the same augmented pixels: more keeps more of the text. A copy of the tower computes the
            second, which takes a third of the time more, and memory for the weights.
        steps: Training steps; if not given, `epochs` counts.
        epochs: Passes over the data.
        batch_size: Images per step.
        accumulate: Take each batch in this many parts, which needs less memory. The result is that of the whole batch
            up to rounding, its captions being the whole batch's; but batch normalisation sees the parts.
        classes_per_batch: This many classes in each batch, each with batch_size / classes_per_batch images; 0 draws
            images whatever their class.
        source_weights: Draw the images of each batch in these shares from the values of the column `source`, for
            example products=2,cars=1.
        optimizer: "adamw", or "adamw8bit": its two moments in 8 bits, which spares 6 of 16 bytes for each trained value
            and rounds. Needs the extra mcip[fp8]; weights and class centers in shards do not go with it.
        lr: Learning rate of the image tower.
        center_init: The class centers start at random (the paper), or at the "class-means" of the model's own
            embeddings: the image tower then has less far to move, and less of the text alignment is lost on the way.
        center_lr_factor: The class centers learn this many times faster.
        center_sample: The share of the classes, drawn anew in each step, whose centers the images of other classes are
            compared with (partial FC): less time and memory where there are very many.
        min_lr_ratio: The cosine schedule ends at this share of the learning rates.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's weight decay.
        max_grad_norm: Largest gradient norm, of the image tower and of the class centers, each by itself.
        max_loss_ratio: Stop at the last checkpoint, with a report in stopped.json, where the mean loss of 20 steps is
            more than this many times the median of the ten means before it, and larger than the run's first; 0 never
            does. A loss or gradient that is not finite always stops the run, before it reaches the weights.
        layer_decay: The learning rate of each layer of the image tower is this share of that of the layer above; 1 is
            the same rate for all.
        freeze: A regular expression: parameters of the image tower with a match in their name are not trained, for
            example conv1|ln_pre|resblocks.[0-5][.]
        freeze_bn: Keep the statistics of batch normalisation, where the image tower has it, as the model has
            them; its weights are trained. In short tunings those of few batches cost more than what is learnt gains.
            Several processes, and batches in parts, then train such a tower as one does.
        lora: The rank of low-rank factors that are trained in place of the image tower's weights and merged into its
            linear layers at the end; 0 trains the weights. Takes a learning rate 10 to 100 times as high.
        ema: Validate and keep the exponential moving average of the weights, with this decay, for example 0.999; 0
            keeps the weights themselves.
        transform: "paper" (squash to 1.125 S, random crop, flip, colour jitter) or "model" (its own, and a flip).
        decode: "fast" reads JPEGs several times faster, to almost the same pixels; "exact" to open_clip's, to the bit.
        patch_dropout: Share of a vision transformer's patches left out in training; which ones does not depend on the
            number of processes or parts.
        grad_checkpointing: Trade time for memory.
        compile: Compile the image tower: "auto" on CUDA from 1,000 steps on, where that pays for the minutes it takes;
            "graphs" replays it as CUDA graphs too, which spares small batches the time of starting kernels.
        validate_every: Steps between validations; 0 validates never.
        patience: Stop after this many validations without a new best; 0 never stops early.
        select: The validation score by which the best weights are kept: "i2i_map", "t2i_r5" or their "mean".
        checkpoint_every: Steps between checkpoints.
        report_to: Where metrics are sent, beside metrics.jsonl: names out of tensorboard, wandb, trackio and mlflow
            with commas between them, or none.
        seed: Seeds the class centers, the order and the augmentation.
        workers: Processes that decode images; 0 decodes in this one.
        cache_gb: Memory for decoded images, in 10^9 bytes; where all fit, each is decoded once.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        fp8: Multiply in the linear layers of the image tower's blocks in 8 bits, the rest in bf16: faster where the
            tower is compiled, on a GPU with compute capability 8.9 or more. Needs the extra mcip[fp8].
        max_unreadable: The share of images that may be unreadable before it stops with an error.
        parallel: Where several processes train (torchrun): "ddp" gives each the whole image tower, "fsdp" a part of
            each of its weights, for towers that do not fit.
        shard_centers_from: Where several processes train and there are at least this many classes, each process holds
            its part of the class centers.

    Returns:
        The tuned model, a folder: `out`/model.

    Raises:
        ConfigError: The parameters do not fit together.
        DataError: There are no labels, or only one class.
        ArtefactError: The captions do not fit the images or the model, or `out` holds another run.

    Example:
        >>> tuned = mcip.tune("products.csv", "runs/gpr-ft", "ViT-B-16/openai", method="gpr-ft")  # doctest: +SKIP
        >>> model = tuned.load()  # doctest: +SKIP
    """
    check_choices(tune, locals())
    team = processes()
    check_method(method, captions, caption_weight, center_sample, parallel)
    check_options(keep, lora, ema, fp8, parallel if team.several else "ddp")
    check_graphs(compile, accumulate, team.several)
    if embeddings is not None and center_init != "class-means":
        raise ConfigError("embeddings are for class means: use --center-init class-means, or leave them out.")
    from mcip.core.artefacts import Artefact
    from mcip.core.device import pick_device
    from mcip.data import Pixels, read_table
    from mcip.data.selection import labelled
    from mcip.embeddings.class_means import class_means
    from mcip.embeddings.encode import embed_images, fingerprint_texts
    from mcip.evaluation.validation import Validation, validation_table
    from mcip.models.compiled import pays
    from mcip.stages.training import (
        caption_term,
        class_loss,
        count_steps,
        finish_training,
        make_order,
        note_small_changes,
        note_without_label,
        open_embeddings,
        prepare_tower,
        save_classes,
        sharded_tower,
        trained_model,
    )  # fmt: skip
    from mcip.training import CHECKPOINTS, FitSettings, fit
    from mcip.training.float8 import check_float8, float8_products
    from mcip.training.low_rank import merge_low_rank
    from mcip.training.objectives import ImageTuning

    out, target = Path(out), pick_device(device)
    if fp8:
        check_float8(target, precision)
    loaded = open_model(model)
    every = read_table(data, split=split, columns=columns)
    table, without_label = labelled(every)
    order = make_order(table, batch_size, seed, classes_per_batch, source_weights)
    steps = count_steps(steps, epochs, order)
    mined = None if captions is None else open_captions(captions)
    stored = None if embeddings is None else open_embeddings(embeddings, loaded, (every, table))
    held_out = validation_table(data, split, validation, validation_split, columns) if validate_every else None
    settings: FitSettings = settings_of(FitSettings, locals(), per_step=order.batch_size, title=method)
    made_from = recorded(
        tune, locals(), ("columns",), data=table.fingerprint, model=loaded.fingerprint,
        captions=mined.fingerprint if mined else None, validation=held_out.fingerprint if held_out else None,
        embeddings=stored.artefact.manifest["made_from"] if stored else None,
        source_weights=source_weights and [source_weights, fingerprint_texts(list(map(str, table.sources)))],
    )  # fmt: skip
    with Artefact.begin(out, KIND, made_from) as artefact:
        if not artefact.complete:
            note_without_label(without_label)
            reading: dict[str, Any] = {"workers": workers, "max_unreadable": max_unreadable}
            with loaded.on(target):
                centers = None
                if center_init == "class-means":
                    if stored is None:
                        stored = embed_images(
                            table, loaded, out / "images", decode=decode, precision=precision, **reading
                        )
                    centers = class_means(table, stored)
                term = caption_term(mined, table.ids, loaded, caption_weight, margin, scale, smoothing)
            by_class = class_loss(
                len(table.classes), loaded.embed_dim, margin, scale, seed, centers, sample=center_sample,
                shard_from=shard_centers_from, device=target,
            )  # fmt: skip
            tower = loaded.clip.visual
            prepare_tower(tower, freeze, freeze_bn, lora, patch_dropout, grad_checkpointing, seed)
            pixels = Pixels(table, loaded.transform(transform, train=True, decode=decode), cache_gb=cache_gb, **reading)
            validate = Validation(loaded, held_out, "image", target, workers, precision) if held_out else None
            with sharded_tower(loaded, parallel, target):
                objective = ImageTuning(
                    loaded, pixels, order, by_class, lr=lr, class_lr=lr * center_lr_factor, weight_decay=weight_decay,
                    captions=term, keep=keep, layer_decay=layer_decay, device=target, validation=validate,
                )  # fmt: skip
                if pays(compile, target, steps, sharded=team.several and parallel == "fsdp"):
                    rows = len(team.part(order.batch_size))
                    objective.compile_for(-(-rows // accumulate), precision, graphs=compile == "graphs")
                products = float8_products(tower) if fp8 else contextlib.nullcontext()
                with note_small_changes(tower, steps, lr), products:
                    done = fit(objective, out / CHECKPOINTS, settings)
            merge_low_rank(loaded.clip.visual)
            save_classes(out, objective)
            finish_training(
                artefact, objective, loaded, done, method, classes=len(objective.classes), without_label=without_label
            )
    return trained_model(out)
