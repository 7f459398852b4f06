"""The image tower on one GPU: training and embedding beside bare loops, and what else might bring it nearer its limit.

`benchmarks/gpu.py` runs this in parts, and says what they are.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch
from tune_throughput import Size, make_sides

from mcip import models
from mcip.embeddings.encode import compiled_embedding, encode_pixels, pad_batch
from mcip.embeddings.half_weights import half_weights
from mcip.models import compiled
from mcip.models.footprint import image_footprint

SEED = 37
TOY: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "resize_mode": "squash"},
}
# Of all layers of a tower, those that the modes are measured with: the share of the limit is the same, and compiling
# takes a fourth.
SHARE_OF_LAYERS: Final = 4
# Batches as multiples of the size that the rows of the whole tower have, compilation, and whether in 8 bits.
MODES: Final = {
    "compiled": (1, "on", False), "fp8": (1, "on", True), "twice the batch": (2, "on", False),
    "graphs": (1, "graphs", False), "fp8, twice the batch": (2, "on", True), "half the batch": (0.5, "on", False),
    "graphs, half the batch": (0.5, "graphs", False),
}  # fmt: skip


class Run:
    """What a part works with, and where its figures go."""

    def __init__(self, quick: bool, figures: Connection) -> None:
        self.quick, self.figures = quick, figures
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if quick:
            leave_out_compiler()

    def model(self, name: str) -> models.Model:
        """The model with random weights; a small one in a quick run."""
        return models.from_config(TOY, seed=SEED) if self.quick else models.create(name, SEED)

    def clock(self) -> float:
        """Seconds, when all that the device has to do is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def add(self, name: str, figure: Any) -> None:
        self.figures.send((name, figure))

    @contextmanager
    def peak(self, figure: dict[str, Any]) -> Any:
        """Note the peak memory of the block, in 10^9 bytes."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield
        if self.device.type == "cuda":
            figure["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            figure["reserved_gb"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)

    def attempt(self, name: str, measure: Callable[[dict[str, Any]], None]) -> None:
        """Measure one figure; where it fails, say why, and go on."""
        figure: dict[str, Any] = {}
        try:
            with self.peak(figure):
                measure(figure)
        except Exception as error:
            figure["error"] = reason(error)
        self.add(name, figure)


def leave_out_compiler() -> None:
    """Let what is compiled run as it was traced: the compiler takes half a minute, also for toys."""
    compiled.BACKEND = "eager"


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def matrix_rate(run: Run, eight_bits: bool = False) -> float:
    """FLOP/s of a bare product of 8,192 cubed in bf16, or in 8 bits; smaller in a quick run."""
    side = 256 if run.quick else 8192
    left, right = (torch.randn(side, side, device=run.device, dtype=torch.bfloat16) for _ in range(2))
    one = torch.ones((), device=run.device)
    eight = [part.to(torch.float8_e4m3fn) for part in (left, right)]
    rounds = 20
    for count in (3, rounds):
        since = run.clock()
        for _ in range(count):
            if eight_bits:
                torch._scaled_mm(eight[0], eight[1].t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
            else:
                torch.mm(left, right)
    return 2 * side**3 * rounds / (run.clock() - since)


def limits(run: Run, model: models.Model) -> Callable[[float, int], float]:
    """What gives the MFU of images per second and passes, forward being one; the product's rate becomes a figure."""
    # Tensors without content cannot be made of those on a device.
    flops, peak = image_footprint(model, 1).forward_flops, matrix_rate(run)
    run.add("matrix_tflops", float(f"{peak / 1e12:.3g}"))
    return lambda rate, passes: float(f"{passes * flops * rate / peak:.3g}")


def training(run: Run, name: str) -> None:
    """The training of `mcip tune` and a bare loop, and embedding, each eager and compiled."""
    model = run.model(name)
    mfu = limits(run, model)
    size = Size(8, 2, 1, batches=2) if run.quick else Size(128, 12, 1, batches=3)
    with tempfile.TemporaryDirectory() as folder:
        sides = make_sides(model, size, Path(folder), run.clock, run.device, "auto", reference=False)
        for side, compile in (
            ("gpr-ft", "off"), ("mcip", "off"), ("bare", "off"), ("gpr-ft", "on"), ("mcip", "on"), ("bare", "on"),
        ):  # fmt: skip

            def measure(figure: dict[str, Any], side: str = side, compile: str = compile) -> None:
                since = time.perf_counter()
                rate = size.batch / sides[side](size.steps, compile)
                figure |= {"images_per_second": round(rate, 1), "mfu": mfu(rate, 3)}
                figure["whole_seconds"] = round(time.perf_counter() - since, 1)

            run.attempt(row_name(side, compile), measure)
    for compile in ("off", "on"):

        def embed(figure: dict[str, Any], compile: str = compile) -> None:
            rate = embed_images(run, model, compile, figure)
            figure |= {"images_per_second": round(rate, 1), "mfu": mfu(rate, 1)}

        run.attempt(row_name("embed", compile), embed)


def row_name(side: str, compile: str) -> str:
    return side if compile == "off" else f"{side} compiled"


def embed_images(run: Run, model: models.Model, compile: str, figure: dict[str, Any]) -> float:
    """Images per second of what `mcip embed` does with finished pixels, here on the device.

    The last batch of a table has fewer images, and is padded: `figure` gets its time as a share of a whole one's.
    """
    rows, rounds = (8, 2) if run.quick else (256, 10)
    model.clip.to(run.device).eval()
    pixels = torch.randn(rows, 3, model.image_size, model.image_size, device=run.device)
    with half_weights(model.clip.visual, run.device, "auto"):
        call = None if compile == "off" else compiled_embedding(model, rows, "auto")
        if compile != "off" and call is None:
            raise RuntimeError("it could not be compiled")
        seconds = {}
        for size, count in ((rows, 2), (rows, rounds), (rows // 2, 2)):
            since = run.clock()
            for _ in range(count):
                encode_pixels(model, pad_batch(pixels[:size], rows), "auto", call)
            seconds[size] = (run.clock() - since) / count
    figure["last_batch"] = round(seconds[rows // 2] / seconds[rows], 2)
    return rows / seconds[rows]


def modes(run: Run, name: str) -> None:
    """The bare loop compiled in other ways and with other batches, on a tower with fewer layers."""
    from mcip.training.float8 import float8_products

    model = run.model(name)
    keep_layers(model, 1 if run.quick else SHARE_OF_LAYERS)
    mfu = limits(run, model)
    run.attempt("matrix_fp8_tflops", lambda figure: figure.update(tflops=round(matrix_rate(run, True) / 1e12, 1)))
    for mode, (factor, compile, eight_bits) in MODES.items():
        size = Size(int((8 if run.quick else 128) * factor), 2 if run.quick else 12, 1, batches=2)

        def measure(
            figure: dict[str, Any], size: Size = size, compile: str = compile, eight_bits: bool = eight_bits
        ) -> None:
            torch.compiler.reset()
            since = time.perf_counter()
            products = float8_products(model.clip.visual) if eight_bits else nullcontext()
            with tempfile.TemporaryDirectory() as folder, products:
                sides = make_sides(model, size, Path(folder), run.clock, run.device, "auto", reference=False)
                rate = size.batch / sides["bare"](size.steps, compile)
            figure |= {"batch": size.batch, "images_per_second": round(rate, 1), "mfu": mfu(rate, 3)}
            figure["whole_seconds"] = round(time.perf_counter() - since, 1)

        run.attempt(mode, measure)


def keep_layers(model: models.Model, share: int) -> None:
    """Leave the first of so many parts of an image tower's blocks."""
    visual: Any = model.clip.visual
    holder, name = (visual.trunk, "blocks") if hasattr(visual, "trunk") else (visual.transformer, "resblocks")
    blocks = getattr(holder, name)
    setattr(holder, name, blocks[: -(-len(blocks) // share)])
