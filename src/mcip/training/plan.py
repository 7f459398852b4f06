"""Estimates of what tuning and alignment take: memory by part, FLOPs, time, and bytes on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.table import Table

from mcip.core.choices import OptimizerName, Precision
from mcip.models import create
from mcip.models.footprint import image_footprint, text_footprint
from mcip.models.state_dict import SkipInit
from mcip.models.text_tower import looks_back_only
from mcip.models.text_training import unlock_text_tower
from mcip.training.objectives.text_alignment import CHUNK_SHARE, chunk_within

# Images per second of `mcip tune`, batch 128, bf16, not compiled, on one NVIDIA H200 (torch 2.11, 2026-11-26).
MEASURED: Final = {"ViT-L-14-336": 284.0, "ViT-SO400M-14-SigLIP-384": 173.0}
# The share of the matrix rate that the measured runs reached, and that rate in FLOP/s (bf16, 8,192 cubed).
_SHARE: Final = 0.42
# The share that `mcip align` reached at 8,192 pairs.
_ALIGN_SHARE: Final = 0.13
# Tokens of a caption of 14 words, where the text tower takes fewer than its context length.
_CAPTION_TOKENS: Final = 16
_MATRIX_RATE: Final = 775e12
# Bytes per trained parameter: weight and gradient in float32; AdamW's two moments in float32 or in 8 bits, with a scale
# for each 256 values.
_WEIGHT_BYTES: Final = 8
_MOMENT_BYTES: Final = {"adamw": 8.0, "adamw8bit": 2 * (1 + 4 / 256)}
# An A100's bf16 FLOP/s by its data sheet: the hours on it are those of the H200 at the same share of the matrix rate.
_A100_RATE: Final = 312e12
# FLOP/s of the bare tf32 product of mining on the same H200: 32,768 x 1,000,000 x 768 in 0.16 s.
MINING_RATE: Final = 315e12
# Bytes per logit of the class loss: the logits, their softmax and their gradient, float32 each.
_LOGIT_BYTES: Final = 12
_CAPTIONS_PER_IMAGE: Final = 20


@dataclass(frozen=True)
class Plan:
    """What `mcip tune`, or `mcip align`, would take.

    Attributes:
        model: The model's name.
        parameters: Trained parameters of the image tower, or of the text tower.
        step_flops: Floating-point operations of one step.
        memory: Bytes on the device by part; their sum is an estimate of the peak.
        device_bytes: The device's memory.
        largest_batch: How many can be taken at a time, as a batch or a part of one, with a tenth of the memory left
            free.
        rate: Images per second.
        rate_source: Where the rate is from.
        hours: Of the whole run.
        a100_hours: On one A100 at the same share of its 312 TFLOP/s, not measured; None where the rate was given.
        mining_flops: Of the product of all images by all captions.
        mining_hours: Of that product by itself, at `MINING_RATE`: counted, not measured.
        disk: Bytes of each artefact.
        stage: "tuning" or "aligning".
    """

    model: str
    parameters: int
    step_flops: float
    memory: dict[str, int]
    device_bytes: int
    largest_batch: int
    rate: float
    rate_source: str
    hours: float
    a100_hours: float | None
    mining_flops: float
    mining_hours: float
    disk: dict[str, int]
    stage: str = "tuning"

    @property
    def fits(self) -> bool:
        """Whether the device's memory is enough."""
        return sum(self.memory.values()) <= self.device_bytes

    def __rich__(self) -> Table:
        """The plan as a table."""
        table = Table("part", "takes", title=f"{self.stage} {self.model}")
        table.add_row("trained parameters", f"{self.parameters / 1e6:,.1f} M")
        table.add_row("FLOPs of a step", f"{self.step_flops / 1e12:,.1f} T")
        for part, size in self.memory.items():
            table.add_row(f"memory: {part}", f"{size / 1e9:,.1f} GB")
        verdict = (
            "fits" if self.fits else "does NOT fit: try --grad-checkpointing, --accumulate, or a smaller --batch-size"
        )
        total = sum(self.memory.values()) / 1e9
        table.add_row("memory in all", f"{total:,.1f} GB of {self.device_bytes / 1e9:,.0f}: {verdict}")
        table.add_row("largest at a time", f"{self.largest_batch:,} with a tenth of the memory left free")
        table.add_row("time", f"{self.hours:,.1f} h at {self.rate:,.0f} a second ({self.rate_source})")
        if self.a100_hours is not None:
            table.add_row("time on one A100", f"{self.a100_hours:,.1f} h (the same share of 312 TFLOP/s, not measured)")
        if self.mining_flops:
            rate = f"{self.mining_flops:.2e} FLOP at {MINING_RATE / 1e12:.0f} T/s: counted, not measured"
            table.add_row("mining's product", f"{self.mining_hours:,.2f} h ({rate})")
        for name, size in self.disk.items():
            table.add_row(f"disk: {name}", f"{size / 1e9:,.1f} GB")
        return table


def make_plan(
    name: str,
    *,
    batch_size: int,
    steps: int | None,
    classes: int,
    images: int,
    captions: int,
    precision: Precision,
    grad_checkpointing: bool,
    accumulate: int,
    keep: float,
    ema: float,
    optimizer: OptimizerName,
    memory_gb: float,
    rate: float | None,
) -> Plan:
    """Estimate what tuning takes; see `mcip.plan`."""
    with SkipInit():
        model = create(name)
    precision = "bf16" if precision == "auto" else precision
    rows = -(-batch_size // accumulate)
    found = image_footprint(model, rows, precision, grad_checkpointing)
    twice = image_footprint(model, 2 * rows, precision, grad_checkpointing)
    dim, count = model.embed_dim, steps or max(1, images // batch_size)
    architecture = name.partition("/")[0]
    if rate is not None:
        source = "given"
    elif architecture in MEASURED:
        rate, source = MEASURED[architecture], "measured on one H200"
    else:
        rate = _SHARE * _MATRIX_RATE / (3 * found.forward_flops)
        source = "one H200 at 42 % of its matrix rate, as the measured models reached"
    copies = {"the base's tower (keep)": 4 * found.parameters} if keep else {}
    if ema:
        copies["averaged weights (ema)"] = 4 * (found.parameters + classes * dim)
    moments = _MOMENT_BYTES[optimizer]
    hours = count * batch_size / rate / 3600
    mining_flops = 2.0 * images * captions * dim
    weights = sum(parameter.numel() for parameter in model.clip.parameters())
    memory = {
        "weights, gradients, optimiser": int((_WEIGHT_BYTES + moments) * found.parameters),
        "class centers with theirs": int((_WEIGHT_BYTES + moments) * classes * dim),
        **copies,
        "logits": _LOGIT_BYTES * rows * classes,
        "activations": found.activation_bytes,
    }
    each = _LOGIT_BYTES * classes + (twice.activation_bytes - found.activation_bytes) / rows
    return Plan(
        model=name,
        parameters=found.parameters,
        step_flops=3 * found.forward_flops * batch_size,
        memory=memory,
        device_bytes=int(memory_gb * 1e9),
        largest_batch=_largest(memory, rows, each, memory_gb),
        rate=rate,
        rate_source=source,
        hours=hours,
        a100_hours=_on_a100(hours, source),
        mining_flops=mining_flops,
        mining_hours=mining_flops / MINING_RATE / 3600,
        disk={
            "model": 4 * weights,
            "checkpoints": int((4 + moments) * (found.parameters + classes * dim)),
            "image embeddings (float16)": 2 * images * dim,
            "caption embeddings (float16)": 2 * captions * dim,
            "mined captions": 12 * images * _CAPTIONS_PER_IMAGE,
        },
    )


def make_align_plan(
    name: str,
    *,
    batch_size: int,
    steps: int | None,
    captions: int,
    unlocked_layers: int | None,
    chunk: int | None,
    precision: Precision,
    grad_checkpointing: bool,
    memory_gb: float,
    rate: float | None,
) -> Plan:
    """Estimate what alignment takes with gradients cached by chunks; see `mcip.plan`."""
    with SkipInit():
        model = create(name)
    precision = "bf16" if precision == "auto" else precision
    tower = getattr(model.clip, "text", model.clip)
    length = _CAPTION_TOKENS if looks_back_only(tower) else tower.context_length
    size = chunk or chunk_within(
        CHUNK_SHARE * memory_gb * 1e9, model, batch_size, length, precision, grad_checkpointing
    )
    found = text_footprint(model, size, length, precision, grad_checkpointing)
    weights = sum(parameter.numel() for parameter in model.clip.parameters())
    unlock_text_tower(model.clip, unlocked_layers)
    trained = sum(parameter.numel() for parameter in model.text_parameters() if parameter.requires_grad)
    passes = 3 if size >= batch_size else 4  # without a graph too
    source = "given"
    if rate is None:
        rate = _ALIGN_SHARE * _MATRIX_RATE / (3 * found.forward_flops)
        source = "one H200 at 13 % of its matrix rate, as an earlier version reached at 8,192 pairs"
    hours = (steps or max(1, captions // batch_size)) * batch_size / rate / 3600
    memory = {
        "weights": 4 * found.parameters,
        "gradients, optimiser": int(_WEIGHT_BYTES - 4 + _MOMENT_BYTES["adamw"]) * trained,
        "embeddings of both sides with gradients": 4 * 4 * batch_size * model.embed_dim,
        f"activations of a chunk of {size:,}": found.activation_bytes,
    }
    twice = text_footprint(model, 2 * size, length, precision, grad_checkpointing)
    each = (twice.activation_bytes - found.activation_bytes) / size
    return Plan(
        model=name,
        parameters=trained,
        step_flops=passes * found.forward_flops * batch_size,
        memory=memory,
        device_bytes=int(memory_gb * 1e9),
        largest_batch=_largest(memory, size, each, memory_gb),
        rate=rate,
        rate_source=source,
        hours=hours,
        a100_hours=_on_a100(hours, source),
        mining_flops=0.0,
        mining_hours=0.0,
        disk={
            "model": 4 * weights,
            "checkpoints": 12 * trained,
            "image embeddings": 4 * captions * model.embed_dim,
        },
        stage="aligning",
    )


def _on_a100(hours: float, source: str) -> float | None:
    return None if source == "given" else hours * _MATRIX_RATE / _A100_RATE


def _largest(memory: dict[str, int], rows: int, each: float, memory_gb: float) -> int:
    """How many rows of `each` bytes fit beside what does not grow with them, a tenth of the memory left free."""
    return max(0, int((0.9e9 * memory_gb - sum(memory.values()) + each * rows) / each))
