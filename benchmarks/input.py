"""Images a second from JPEG to a model's pixels, by decoder, and what each does to embeddings; all in one run.

python benchmarks/input.py                      about two minutes on one core
python benchmarks/input.py --quick              half a minute
python benchmarks/input.py --images FOLDER      with the JPEGs of a folder instead of drawn ones
python benchmarks/input.py --model toyshop      embeddings of another model; what `mcip.load` takes

Every way starts with the bytes of a 640 x 480 JPEG and ends with uint8 pixels of the side that the model takes:
  open_clip        Pillow's full decoding and open_clip's own transform, normalisation included
  exact            `mcip`'s --decode exact: the same pixels to the bit, normalised later, by batches
  pillow-draft     Pillow's decoding at 1/2, 1/4 or 1/8 of the size (draft), and its resizing with reducing_gap
  torchvision      torchvision's decoder, and PyTorch's resizing
  torchcodec       torchcodec's decoder, and PyTorch's resizing
  simplejpeg       simplejpeg's full decoding, and PyTorch's resizing
  fast             `mcip`'s --decode fast: decoding at a part of the size, by simplejpeg where it is installed, and
                   PyTorch's resizing
  nvjpeg           on a GPU: decoding by batches with nvJPEG (through torchcodec, else torchvision) and resizing there
A way has one thread, and its rate counts CPU time (on a GPU the clock's), so that busy cores do not matter; it is the
median over the rounds, in each of which all ways run in turn. Distances are one minus the cosine between the embeddings
of a way's pixels and of open_clip's. Without --model the weights of ViT-B-32 are random (seeded): nothing is
downloaded, but trained weights may tell more.

The images are those of a parquet file (--parquet) or a folder, brought to 640 x 480, or else drawn: soft shapes with
edges and noise. Small images are put side by side, so that they are not enlarged.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from input_images import SEED, at_size, drawn, encoded
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from rich.console import Console
from rich.table import Table as TextTable
from torch import Tensor
from torch.nn import functional as F

import mcip
from mcip import models
from mcip.data.fast_resize import resize_fast
from mcip.data.resize import ModelResize

TARGET_MEAN_COSINE, TARGET_RATIO = 0.999, 4.0
GPU_BATCH = 64
Way = Callable[[bytes], Tensor]


def jpegs(options: argparse.Namespace, count: int) -> tuple[list[bytes], str]:
    """The files, and what they are in words."""
    if options.images is not None or options.parquet is not None:
        table = mcip.read_table(options.images or options.parquet)
        rows = np.random.default_rng(SEED).permutation(len(table))[: 40 * count].tolist()
        images, what = at_size([table.image(row) for row in rows], count), f"from {Path(table.name).name}"
    else:
        images, what = drawn(count), "drawn"
    return encoded(images), what


def ways(model: models.Model) -> dict[str, Way]:
    """What is compared, each from a file to uint8 (3, S, S)."""
    cfg = PreprocessCfg(**model.preprocess_cfg)
    whole, resize = image_transform_v2(cfg, is_train=False), ModelResize(cfg)
    exact, fast = (model.transform(decode=decode) for decode in ("exact", "fast"))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (exact.mean, exact.std))

    def open_clip_way(content: bytes) -> Tensor:
        pixels: Tensor = whole(Image.open(io.BytesIO(content)))
        return pixels

    def pillow_draft(content: bytes) -> Tensor:
        image = Image.open(io.BytesIO(content))
        wide, high = resize.resized_size(*image.size)
        image.draft("RGB", (wide, high))
        small = image.convert("RGB").resize((wide, high), resize.resample, reducing_gap=2.0)
        return exact.prepare(small)

    def resized(pixels: np.ndarray[Any, Any]) -> Tensor:
        return resize_fast(pixels, resize, (pixels.shape[1], pixels.shape[0]))

    def of_tensor(pixels: Tensor) -> Tensor:
        return resized(pixels.permute(1, 2, 0).contiguous().numpy())

    found: dict[str, Way] = {
        "open_clip": open_clip_way, "exact": lambda content: exact.read(content)[0], "pillow-draft": pillow_draft,
    }  # fmt: skip
    if find_spec("torchvision") is not None:
        from torchvision.io import ImageReadMode, decode_jpeg

        found["torchvision"] = lambda content: of_tensor(
            decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
        )
    if find_spec("torchcodec") is not None:
        try:
            torchcodec_decode = import_module("torchcodec.decoders").decode_jpeg

            found["torchcodec"] = lambda content: of_tensor(torchcodec_decode(content))
        # Built for another torch, or before it read images.
        except (ImportError, AttributeError, RuntimeError, OSError) as error:
            Console(stderr=True).print(f"torchcodec is left out: {str(error).splitlines()[0]}", markup=False)
    if find_spec("simplejpeg") is not None:
        import simplejpeg

        found["simplejpeg"] = lambda content: resized(simplejpeg.decode_jpeg(content))
    found["fast"] = lambda content: fast.read(content)[0]
    # open_clip's values lie in the model's range; as levels they are those of the others.
    to_levels = found["open_clip"]
    found["open_clip"] = lambda content: to_levels(content).mul(std).add(mean)
    return found


def on_gpu(model: models.Model) -> Callable[[Sequence[bytes]], Tensor]:
    """Decoding and resizing of batches on the GPU; float (B, 3, S, S) in [0, 1] there."""
    resize = ModelResize(PreprocessCfg(**model.preprocess_cfg))
    try:
        decode_jpeg = import_module("torchcodec.decoders").decode_jpeg

        def decode(contents: list[Any]) -> list[Tensor]:
            return list(decode_jpeg(contents, device="cuda"))

        decode([_grey()])
    except (ImportError, AttributeError, RuntimeError, OSError, TypeError):
        from torchvision.io import ImageReadMode
        from torchvision.io import decode_jpeg as decode_tensors

        def decode(contents: list[Any]) -> list[Tensor]:
            tensors = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
            return list(decode_tensors(tensors, ImageReadMode.RGB, device="cuda"))

    def run(contents: Sequence[bytes]) -> Tensor:
        squares = []
        for pixels in decode(list(contents)):
            wide, high = resize.resized_size(pixels.shape[2], pixels.shape[1])
            part = F.interpolate(pixels[None].float(), size=(high, wide), mode="bicubic", antialias=True)
            left, top = round((wide - resize.side) / 2), round((high - resize.side) / 2)
            squares.append(part[:, :, top : top + resize.side, left : left + resize.side])
        return torch.cat(squares).round_().clamp_(0, 255).div_(255)

    return run


def _grey() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG")
    return stream.getvalue()


def embed(model: models.Model, pixels: Tensor) -> Tensor:
    """Unit vectors of pixels: uint8, or float in [0, 1]."""
    transform = model.transform()
    values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (transform.mean, transform.std))
    with torch.inference_mode():
        return F.normalize(model.embed_pixels(((values - mean) / std).to(model.device)).float(), dim=-1).cpu()


def seconds_of(way: Callable[[], object], clock: Callable[[], float]) -> float:
    since = clock()
    way()
    return clock() - since


def measure(model: models.Model, contents: list[bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Rates and distances by way."""
    found = ways(model)
    reference = embed(model, torch.stack([found["open_clip"](content) for content in contents]))
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds):
        for name in found if number % 2 == 0 else reversed(found):
            way = found[name]
            times[name].append(seconds_of(partial(list, map(way, contents)), time.process_time))
    result = {}
    for name, way in found.items():
        vectors = embed(model, torch.stack([way(content) for content in contents]))
        result[name] = figures(len(contents) / statistics.median(times[name]), reference, vectors)
    if torch.cuda.is_available():
        run = on_gpu(model)
        batches = [contents[at : at + GPU_BATCH] for at in range(0, len(contents), GPU_BATCH)]
        vectors = embed(model, torch.cat([run(batch).cpu() for batch in batches]))

        def decode_all() -> None:
            for batch in batches:
                run(batch)
            torch.cuda.synchronize()

        rate = len(contents) / statistics.median(
            seconds_of(decode_all, time.perf_counter) for _ in range(max(rounds, 3))
        )
        result["nvjpeg"] = figures(rate, reference, vectors)
    return result


def figures(rate: float, reference: Tensor, vectors: Tensor) -> dict[str, float]:
    distances = 1 - (reference * vectors).sum(dim=-1).double()
    return {
        "images_per_second": round(rate, 1),
        "mean_distance": round(float(distances.mean()), 6),
        "largest_distance": round(float(distances.max()), 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--parquet", type=Path, help="a parquet file with images")
    parser.add_argument("--model", help="what `mcip.load` takes [ViT-B-32 with random weights]")
    parser.add_argument("--quick", action="store_true", help="few images and rounds")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    contents, what = jpegs(options, 16 if options.quick else 64)
    model = models.load(options.model) if options.model else models.create("ViT-B-32", SEED)
    if torch.cuda.is_available():
        model.clip.to("cuda")
    result = measure(model, contents, 3 if options.quick else 9)
    ratio = result["fast"]["images_per_second"] / result["exact"]["images_per_second"]
    size = round(statistics.mean(map(len, contents)))
    weights = options.model or "ViT-B-32, random weights"
    shown = TextTable("way", "images/s", "of exact", "mean distance", "largest")
    for name, values in result.items():
        rate = values["images_per_second"]
        place = "a GPU" if name == "nvjpeg" else "a core"
        times = rate / result["exact"]["images_per_second"]
        distances = (f"{values[key]:.6f}" for key in ("mean_distance", "largest_distance"))
        shown.add_row(name, f"{rate:,.0f} {place}", f"{times:.2f}", *distances)
    console = Console()
    console.print(
        f"{len(contents)} JPEGs of 640 x 480, {what}, {size:,} bytes each; embeddings by {weights}", markup=False
    )
    console.print(shown)
    simplejpeg = find_spec("simplejpeg") is not None
    console.print(
        f"fast is {ratio:.2f} times exact (expected: {TARGET_RATIO:g} with simplejpeg; it is here: {simplejpeg})"
    )
    print(
        json.dumps(
            {
                "images": what,
                "bytes": size,
                "weights": weights,
                "quick": options.quick,
                "simplejpeg": simplejpeg,
                "fast_vs_exact": round(ratio, 3),
                "ways": result,
            }
        )
    )


if __name__ == "__main__":
    main()
