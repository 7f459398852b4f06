"""All figures of one GPU in one run, each of `mcip`'s beside a bare loop; the last line is JSON.

python benchmarks/gpu.py            on one GPU with 16 cores, under 8 minutes; no network
python benchmarks/gpu.py --quick    the same at toy size, on a GPU or a CPU, about a minute on idle cores
python benchmarks/gpu.py --only align mining      some parts, in the time of all

Weights are random. The parts, each in a process of its own:
  ViT-L-14-336, ViT-SO400M-14-SigLIP-384
            the training of `mcip tune` (GPR-FT and MCIP) at batch 128 on images that are decoded already, eager and
            compiled, and a bare loop, eager and compiled; embedding of pixels in memory, eager and compiled
  align     `mcip align` of ViT-L-14's text tower at 1,024, 8,192 and 32,768 pairs a step, and the tokenizers
  mining    32,768 images by 1,000,000 captions of 768 dimensions, gallery in host memory and on the device, beside the
            bare products
  jpeg      `mcip embed` from 640 x 480 JPEGs with workers, start included: ViT-B-32 and ViT-L-14-336
  decoding  images per second of one core by decoder, and on the GPU (benchmarks/input.py)
  resume    `mcip tune`, eager and compiled, killed by SIGKILL and started again: whether it ends with the same bytes
MFU is three times the forward pass's FLOPs, as PyTorch counts them, over the rate of a bare bf16 product of 8,192 cubed
in this run. Each part has its share of the time that is left: one that is stopped, or fails, says so under "error",
beside the figures that it had until then, and the others still run. Figures go to stderr as they come.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch

from mcip import models

SEED = 37
SECONDS: Final = 465.0
# The share of the time of each part, in seconds of an H200 if all runs as expected.
PARTS: Final = {
    "ViT-L-14-336": 130, "ViT-SO400M-14-SigLIP-384": 140, "align": 60, "mining": 45, "jpeg": 40, "decoding": 20,
    "resume": 45,
}  # fmt: skip
PRELOADED = ("mcip.stages.tune", "mcip.training.objectives", "mcip.embeddings.encode", "open_clip", "timm")
TOY: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "resize_mode": "squash"},
}


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
    from mcip.models import compiled

    compiled.BACKEND = "eager"


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def matrix_rate(run: Run) -> float:
    """FLOP/s of a bare bf16 product of 8,192 cubed; smaller in a quick run."""
    side = 256 if run.quick else 8192
    left, right = (torch.randn(side, side, device=run.device, dtype=torch.bfloat16) for _ in range(2))
    rounds = 20
    for count in (3, rounds):
        since = run.clock()
        for _ in range(count):
            torch.mm(left, right)
    return 2 * side**3 * rounds / (run.clock() - since)


def training(run: Run, name: str) -> None:
    from tune_throughput import Size, make_sides

    from mcip.models.footprint import image_footprint

    model = run.model(name)
    # Tensors without content cannot be made of those on a device.
    flops, peak = image_footprint(model, 1).forward_flops, matrix_rate(run)
    run.add("matrix_tflops", float(f"{peak / 1e12:.3g}"))
    size = Size(8, 2, 1, batches=2) if run.quick else Size(128, 12, 1, batches=3)

    def mfu(rate: float, passes: int) -> float:
        return float(f"{passes * flops * rate / peak:.3g}")

    with tempfile.TemporaryDirectory() as folder:
        sides = make_sides(model, size, Path(folder), run.clock, run.device, "auto", reference=False)
        for side, compile in (
            ("gpr-ft", False), ("mcip", False), ("bare", False), ("gpr-ft", True), ("mcip", True), ("bare", True),
        ):  # fmt: skip

            def measure(figure: dict[str, Any], side: str = side, compile: bool = compile) -> None:
                since = time.perf_counter()
                rate = size.batch / sides[side](size.steps, compile=compile)
                figure |= {"images_per_second": round(rate, 1), "mfu": mfu(rate, 3)}
                figure["whole_seconds"] = round(time.perf_counter() - since, 1)

            run.attempt(f"{side}{' compiled' if compile else ''}", measure)
    for compile in (False, True):

        def embed(figure: dict[str, Any], compile: bool = compile) -> None:
            rate = embedding_rate(run, model, compile)
            figure |= {"images_per_second": round(rate, 1), "mfu": mfu(rate, 1)}

        run.attempt(f"embed{' compiled' if compile else ''}", embed)


def embedding_rate(run: Run, model: models.Model, compile: bool) -> float:
    """Images per second of what `mcip embed` does with finished pixels, here on the device."""
    from mcip.embeddings.encode import compiled_embedding, encode_pixels
    from mcip.embeddings.half_weights import half_weights

    rows, rounds = (8, 2) if run.quick else (256, 10)
    model.clip.to(run.device).eval()
    pixels = torch.randn(rows, 3, model.image_size, model.image_size, device=run.device)
    with half_weights(model.clip.visual, run.device, "auto"):
        call = compiled_embedding(model, rows, "auto") if compile else None
        if compile and call is None:
            raise RuntimeError("it could not be compiled")
        for count in (2, rounds):
            since = run.clock()
            for _ in range(count):
                encode_pixels(model, pixels, "auto", call)
        return rows * rounds / (run.clock() - since)


def align(run: Run) -> None:
    from align import measure

    for batch in (16, 32) if run.quick else (1024, 8192, 32_768):

        def one(figure: dict[str, Any], batch: int = batch) -> None:
            name, part = ("quick", 16) if run.quick else ("ViT-L-14", min(batch, 8192))
            with tempfile.TemporaryDirectory() as folder:
                figure |= measure(name, batch, part, 2 if run.quick else 3, run.device, Path(folder))

        run.attempt(f"batch {batch}", one)


def mining(run: Run) -> None:
    from mining import speed

    images, captions, dim = (64, 4096, 64) if run.quick else (32_768, 1_000_000, 768)

    def one(figure: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            figure |= speed(Path(folder), images, captions, dim, 3, run.device)

    run.attempt("speed", one)


def jpeg(run: Run) -> None:
    from input import drawn, encoded

    from mcip.data import read_table
    from mcip.embeddings.encode import embed_images

    count, workers = (16, 0) if run.quick else (4000, max(1, (os.cpu_count() or 2) - 2))
    with tempfile.TemporaryDirectory() as folder:
        contents = encoded(drawn(4 if run.quick else 64))
        (Path(folder) / "images").mkdir()
        for number in range(count):
            (Path(folder) / "images" / f"{number}.jpg").write_bytes(contents[number % len(contents)])
        for name in ("ViT-B-32", "ViT-L-14-336"):
            for decode in ("fast", "exact"):

                def one(figure: dict[str, Any], name: str = name, decode: Any = decode) -> None:
                    model = run.model(name)
                    model.clip.to(run.device)
                    since = run.clock()
                    table = read_table(Path(folder) / "images")
                    embed_images(table, model, Path(folder) / f"{name}-{decode}", decode=decode, workers=workers)
                    rate = count / (run.clock() - since)
                    figure |= {"images": count, "workers": workers, "images_per_second": round(rate, 1)}

                run.attempt(f"{name} {decode}", one)


def decoding(run: Run) -> None:
    from input import drawn, encoded, measure

    torch.set_num_threads(1)
    model = run.model("ViT-B-32")
    model.clip.to(run.device)
    run.attempt("ways", lambda figure: figure.update(measure(model, encoded(drawn(4 if run.quick else 64)), 3)))


def resume(run: Run) -> None:
    """A run that is killed and started again, beside one that is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table, base = toy_table(folder), models.save(run.model("toyshop"), folder / "base")
        for compile in ("off", "on"):
            arguments: dict[str, Any] = {
                "data": str(table), "model": str(base), "method": "gpr-ft", "steps": 12 if run.quick else 60,
                "batch_size": 8, "checkpoint_every": 2, "lr": 1e-4, "compile": compile,
            }  # fmt: skip

            def one(figure: dict[str, Any], given: dict[str, Any] = arguments) -> None:
                killed_and_resumed(run, figure, folder, given)

            run.attempt(f"compile {compile}", one)


def toy_table(folder: Path) -> Path:
    """16 images of 8 classes in folders."""
    from input import drawn

    for number, image in enumerate(drawn(16)):
        (folder / "images" / str(number % 8)).mkdir(parents=True, exist_ok=True)
        image.resize((64, 64)).save(folder / "images" / str(number % 8) / f"{number}.png")
    return folder / "images"


def tune(quick: bool, arguments: dict[str, Any]) -> None:
    from mcip.stages.tune import tune as stage

    if quick:
        leave_out_compiler()
    stage(**arguments)


def killed_and_resumed(run: Run, figure: dict[str, Any], folder: Path, arguments: dict[str, Any]) -> None:
    from mcip.core.hashes import hash_file

    def start(out: Path) -> Any:
        process = forkserver().Process(target=tune, args=(run.quick, {**arguments, "out": out}))
        process.start()
        return process

    def finish(out: Path) -> str:
        process = start(out)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"mcip tune ended with {process.exitcode}")
        return hash_file(out / "model" / "open_clip_model.safetensors").hex()

    whole, stopped = folder / "whole", folder / "stopped"
    expected = finish(whole)
    process = start(stopped)
    while process.is_alive() and not (stopped / "checkpoints" / "checkpoint.json").exists():
        time.sleep(0.005)
    process.kill()
    process.join()
    figure["killed"] = process.exitcode == -signal.SIGKILL
    figure["same_bytes"] = finish(stopped) == expected
    for out in (whole, stopped):
        shutil.rmtree(out)


def forkserver() -> Any:
    """Starts processes from one that has the modules, and has not touched the device."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return context


def work(name: str, quick: bool, figures: Connection) -> None:
    """Run a part, in a process and a process group of its own."""
    os.setsid()
    torch.backends.cuda.matmul.allow_tf32 = False
    run = Run(quick, figures)
    parts: dict[str, Callable[[Run], None]] = {
        "align": align, "mining": mining, "jpeg": jpeg, "decoding": decoding, "resume": resume,
    }  # fmt: skip
    try:
        parts[name](run) if name in parts else training(run, name)
    except Exception as error:
        run.add("error", reason(error))


def run_part(name: str, quick: bool, limit: float) -> dict[str, Any]:
    """The figures of a part that has so many seconds."""
    receive, send = forkserver().Pipe(duplex=False)
    process = forkserver().Process(target=work, args=(name, quick, send))
    process.start()
    send.close()
    found: dict[str, Any] = {}
    began = time.monotonic()
    try:
        while receive.poll(max(0.0, began + limit - time.monotonic())):
            row, figure = receive.recv()
            found[row] = figure
            print(f"{name}: {row}: {json.dumps(figure)}", file=sys.stderr, flush=True)
        found["error"] = f"stopped after {limit:.0f} s"
    except EOFError:
        process.join(10)
        if process.exitcode:
            found["error"] = f"ended with {process.exitcode}"
    with suppress(ProcessLookupError):  # it has not begun, or all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="toy sizes, on a CPU too")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="the parts to run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the time of all parts")
    options = parser.parse_args()
    began, found = time.monotonic(), dict[str, Any]()
    for place, name in enumerate(options.only):
        left = max(0.0, options.seconds - (time.monotonic() - began))
        limit = left * PARTS[name] / sum(PARTS[other] for other in options.only[place:])
        found[name] = run_part(name, options.quick, limit)
    cuda = torch.cuda.is_available()
    card = torch.cuda.get_device_name() if cuda else "CPU"
    facts = {
        "card": card, "torch": torch.__version__, "cuda": torch.version.cuda, "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"), "quick": options.quick, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps({**facts, "parts": found}))


if __name__ == "__main__":
    main()
