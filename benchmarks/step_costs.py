"""What a training step does beside its products: casts of weights under autocast, and the compiler's kernels.

python benchmarks/step_costs.py            ViT-L-14-336 and ViT-SO400M-14-SigLIP-384; a few minutes, of compiling
python benchmarks/step_costs.py --quick    a toy, without the compiler

Casts are counted, not run: a step of forward and backward passes on tensors without content, in one part, in four and
with checkpointing. A float32 weight that is cast to bf16 is read (4 bytes) and written (2), and so is its gradient the
other way. `share` is what these bytes take, at the memory bandwidth of an H200, of the time of a step of 128 images at
the rates that are aimed at: what could be saved, at most, by bf16 copies of the weights. Kernels are those of a block
of ViT-L, forward and backward, as the compiler names them: what it fused, for the CPU or the GPU that is there. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any, Final

import open_clip
import torch
from open_clip.model import _build_vision_tower
from torch._inductor.utils import run_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mcip.models.footprint import fake_parameters

# Images per second that a step of 128 images is to reach on an H200, and the bytes per second of its memory.
RATES: Final = {"ViT-L-14-336": 375.0, "ViT-SO400M-14-SigLIP-384": 200.0}
BATCH: Final = 128
BANDWIDTH: Final = 4.8e12
# Bytes that move for each element when it is cast from float32 to bf16, or back.
BYTES: Final = 6
# Parts of a batch, and whether activations are computed again in the backward pass.
STEPS: Final = {"whole": (1, False), "four parts": (4, False), "checkpointing": (1, True)}


class Casts(TorchDispatchMode):
    """Counts casts of parameters to bf16, and those of their gradients back to float32."""

    def __init__(self, shapes: set[torch.Size], storages: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes, self.storages = shapes, storages
        self.weights, self.gradients, self.elements = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and found.dtype != args[0].dtype:
            ours = args[0].untyped_storage()._cdata in self.storages
            back = args[0].dtype == torch.bfloat16 and args[0].shape in self.shapes
            self.weights += ours
            self.gradients += back
            self.elements += args[0].numel() if ours or back else 0
        return found


def casts(name: str) -> dict[str, dict[str, Any]]:
    """The casts of a step of a tower, and the bytes that they move, by how the step is taken."""
    config: Any = open_clip.get_model_config(name)
    visual: Any = _build_vision_tower(config["embed_dim"], config["vision_cfg"]).train()
    size, found = config["vision_cfg"]["image_size"], {}
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, fake_parameters(visual, fake):
        parameters = list(visual.parameters())
        for step, (parts, checkpointing) in STEPS.items():
            visual.set_grad_checkpointing(checkpointing)
            counted = Casts({p.shape for p in parameters}, {p.untyped_storage()._cdata for p in parameters})
            for _ in range(parts):
                pixels = torch.empty(2, 3, size, size)
                with counted, torch.autocast("cpu", dtype=torch.bfloat16):
                    embeddings = visual(pixels)
                with counted:
                    embeddings.float().sum().backward()
            moved = BYTES * counted.elements
            found[step] = {"weights": counted.weights, "gradients": counted.gradients, "gb": round(moved / 1e9, 2)}
            if name in RATES:
                found[step]["share"] = float(f"{moved / BANDWIDTH / (BATCH / RATES[name]):.2g}")
    return found


def kernels() -> dict[str, Any]:
    """The kinds of kernels of a block of ViT-L, forward and backward, and the block's operations uncompiled."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    block = open_clip.transformer.ResidualAttentionBlock(1024, 16).to(device)
    tokens = torch.randn(2, 577, 1024, device=device, requires_grad=True)

    def step(call: Any) -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            found = call(tokens)
        found.float().square().sum().backward()

    operations = Operations()  # type: ignore[no-untyped-call]
    with operations:
        step(block)
    _, codes = run_and_get_code(step, torch.compile(block, dynamic=False))
    fused = [sorted(set(re.findall(r"(?:cpp|triton\w*?)_fused_(\w+?)_\d+\b", code))) for code in codes]
    return {"device": device, "operations": operations.count, "fused": fused}


class Operations(TorchDispatchMode):
    """Counts operations that compute something, views left out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, without the compiler")
    options = parser.parse_args()
    names = ["ViT-B-32"] if options.quick else list(RATES)
    found: dict[str, Any] = {name: casts(name) for name in names}
    if not options.quick:
        found["kernels"] = kernels()
    print(json.dumps({"torch": torch.__version__, "quick": options.quick, **found}))


if __name__ == "__main__":
    main()
