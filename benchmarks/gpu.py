"""All figures of one GPU in one run, each of `mcip`'s beside a bare loop; the last line is JSON.

python benchmarks/gpu.py            on one GPU with 16 cores, under 8 minutes; no network
python benchmarks/gpu.py --quick    the same at toy size, on a GPU or a CPU, about a minute on idle cores
python benchmarks/gpu.py --only align mining      some parts, in the time of all

Weights are random. The parts, each in a process of its own:
  ViT-L-14-336, ViT-SO400M-14-SigLIP-384
            the training of `mcip tune` (GPR-FT and MCIP) at batch 128 on images that are decoded already, eager and
            compiled, and a bare loop, eager and compiled; embedding of pixels in memory, eager and compiled, and what
            the padded last batch of a table takes, as a share of a whole one
  ViT-L-14-336 modes, ViT-SO400M-14-SigLIP-384 modes
            the bare loop as CUDA graphs, in 8 bits (mcip[fp8]) and with other batches, on a fourth of the layers
  align     `mcip align` of ViT-L-14's text tower at 1,024, 8,192 and 32,768 pairs a step, and the tokenizers
  mining    32,768 images by 1,000,000 captions of 768 dimensions, gallery in host memory and on the device, beside the
            bare products
  jpeg      `mcip embed` from 640 x 480 JPEGs with workers, start included: ViT-B-32 and ViT-L-14-336
  decoding  images per second of one core by decoder, and on the GPU (benchmarks/input.py)
  resume    `mcip tune`, eager and compiled, killed by SIGKILL and started again: whether it ends with the same bytes
MFU is three times the forward pass's FLOPs, as PyTorch counts them, over the rate of a bare bf16 product of 8,192 cubed
in this run, in 8 bits too. Each part has its share of the time that is left: one that is stopped, or fails, says so
under "error", beside the figures that it had until then, and the others still run. Figures go to stderr as they come.
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
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch
from gpu_towers import Run, leave_out_compiler, modes, reason, training

from mcip import models

SECONDS: Final = 465.0
# The share of the time of each part, in seconds of an H200 if all runs as expected.
PARTS: Final = {
    "ViT-L-14-336": 115, "ViT-SO400M-14-SigLIP-384": 125, "ViT-L-14-336 modes": 80,
    "ViT-SO400M-14-SigLIP-384 modes": 50, "align": 40, "mining": 30, "jpeg": 30, "decoding": 15, "resume": 40,
}  # fmt: skip
MODES: Final = " modes"
PRELOADED = ("mcip.stages.tune", "mcip.training.objectives", "mcip.embeddings.encode", "open_clip", "timm")


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
    from input_images import drawn, encoded

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
    from input import measure
    from input_images import drawn, encoded

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
    from input_images import drawn

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
        if name in parts:
            parts[name](run)
        elif name.endswith(MODES):
            modes(run, name.removesuffix(MODES))
        else:
            training(run, name)
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
