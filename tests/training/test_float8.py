"""Products in 8 bits: which layers get them, what they compute, that a run resumes, and where they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mcip import models
from mcip.core import optional
from mcip.core.choices import Precision
from mcip.core.errors import ConfigError
from mcip.models import compiled
from mcip.stages.tune import tune
from mcip.training import float8
from mcip.training.float8 import _Attention, check_float8, float8_products
from mcip.training.objectives import ImageTuning
from tests.tiny import CONFIG, TINY_SIGLIP, contents, pixels_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUICK: dict[str, Any] = {"method": "gpr-ft", "steps": 4, "batch_size": 8, "lr": 1e-3, "device": "cpu", "fp8": True}


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor as 8 bits hold it, scaled so that its largest value is the format's largest."""
    scale = torch.finfo(dtype).max / tensor.detach().abs().max().double()
    return (tensor * scale.float()).to(dtype).float() / scale.float()


class Rounded(torch.autograd.Function):
    """y = x W' with both in e4m3; in backward the gradient of y is in e5m2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = rounded(x, torch.float8_e4m3fn), rounded(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        gradient = rounded(gradient, torch.float8_e5m2)
        return gradient @ weight, gradient.flatten(0, -2).t() @ x.flatten(0, -2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(32, 48))])

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks[0](x)
        return found


def test_products_are_those_of_rounded_factors() -> None:
    pytest.importorskip("torchao")
    tower, x = Block(), torch.randn(5, 7, 32, requires_grad=True)
    linear: Any = tower.blocks[0][0]  # type: ignore[index]
    expected = Rounded.apply(x, linear.weight) + linear.bias
    target = torch.randn_like(expected)
    before = torch.autograd.grad((expected * target).sum(), [x, linear.weight, linear.bias])
    with float8_products(tower):
        found = tower(x)
        after = torch.autograd.grad((found * target).sum(), [x, linear.weight, linear.bias])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for gradient, other in zip(after, before, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(found, linear(x), atol=1e-3)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(2)
    attention, tokens = nn.MultiheadAttention(32, 4, batch_first=True), torch.randn(3, 5, 32)
    mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    for some in (None, mask):
        expected = attention(tokens, tokens, tokens, need_weights=False, attn_mask=some)[0]
        found = _Attention(attention)(tokens, tokens, tokens, need_weights=False, attn_mask=some)[0]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, TINY_SIGLIP], ids=["open_clip", "timm"])
def test_towers_keep_their_parameters(config: dict[str, Any]) -> None:
    pytest.importorskip("torchao")
    model = models.from_config(config, seed=1)
    tower, pixels = model.clip.visual.train(), pixels_for(model)
    parameters, layers = [*tower.parameters()], [*tower.modules()]
    plain = tower(pixels)
    with float8_products(tower):
        eight = [name for name, layer in tower.named_modules() if type(layer).__name__ == "Float8Linear"]
        found = tower(pixels)
        found.sum().backward()
    assert all("blocks." in name for name in eight)
    blocks = len({name.split("blocks.")[1].split(".")[0] for name in eight})
    assert len(eight) == 4 * blocks
    assert all(p is other and p.grad is not None for p, other in zip(tower.parameters(), parameters, strict=True))
    assert [*tower.modules()] == layers
    similarity = torch.nn.functional.cosine_similarity(found, plain)
    assert 0.95 < similarity.min() < 0.99999
    assert torch.equal(tower(pixels), plain)


def test_a_tower_without_such_layers_is_refused() -> None:
    pytest.importorskip("torchao")
    with pytest.raises(ConfigError, match="has no blocks"), float8_products(nn.Sequential(nn.Linear(32, 32))):
        pass


@pytest.mark.parametrize("compile", ["off", "on"])
def test_a_run_resumes_to_the_same_bytes(
    compile: str, train: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchao")
    monkeypatch.setattr(float8, "check_float8", lambda device, precision: None)
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    arguments = {**QUICK, "steps": 5, "checkpoint_every": 2, "accumulate": 2, "compile": compile}
    tune(str(train), tmp_path / "whole", str(base), **arguments)
    after_step, made = ImageTuning.after_step, []

    def stopping(self: ImageTuning) -> None:
        made.append(1)
        if len(made) == 4:
            raise InterruptedError
        after_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(ImageTuning, "after_step", stopping)
        with pytest.raises(InterruptedError):
            tune(str(train), tmp_path / "stopped", str(base), **arguments)
    tune(str(train), tmp_path / "stopped", str(base), **arguments)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    monkeypatch.setattr(float8, "float8_products", lambda tower: pytest.fail("fp8 is off"))
    plain = tune(str(train), tmp_path / "plain", str(base), **{**arguments, "fp8": False})
    trained = [models.load(path).clip.visual.state_dict() for path in (plain, tmp_path / "whole" / "model")]
    assert trained[0].keys() == trained[1].keys()
    assert not torch.equal(trained[0]["proj"], trained[1]["proj"])


def test_where_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "module", lambda name: None)
    with pytest.raises(ConfigError, match=r"compute capability 8\.9 .* the device cpu does not"):
        check_float8(CPU, "bf16")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    cases: list[tuple[tuple[int, int], Precision, str]] = [
        ((8, 0), "bf16", "NVIDIA A100 does not"), ((8, 9), "fp32", "not with --precision fp32"),
    ]  # fmt: skip
    for capability, precision, message in cases:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        with pytest.raises(ConfigError, match=message):
            check_float8(CUDA, precision)
    check_float8(CUDA, "auto")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("mcip.core.optional.importlib.import_module", absent)
    with pytest.raises(ConfigError, match=r"torchao.*mcip\[fp8\]"):
        check_float8(CUDA, "auto")


def test_it_goes_with_no_low_rank_factors(train: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora cannot go with fp8"):
        tune(str(train), tmp_path / "run", str(base), **{**QUICK, "lora": 2})
