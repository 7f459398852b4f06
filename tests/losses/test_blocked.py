"""The blocked losses against autograd, loops and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mcip.core.errors import ModelError
from mcip.core.processes import Processes
from mcip.losses import blocked_info_nce, blocked_sigmoid
from mcip.losses.blocked import _gradients

BLOCKS = (1, 13, 1 << 20)


def pairs(count: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    x, t = F.normalize(torch.randn(2, count, 5, generator=generator, dtype=torch.float64), dim=-1).to(dtype)
    return x, t


def sigmoid_by_autograd(x: Tensor, t: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    signs = 2 * torch.eye(len(x), dtype=x.dtype) - 1
    return -F.logsigmoid(signs * (scale * x @ t.T + bias)).sum() / len(x)


def with_gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    return value, *torch.autograd.grad(3 * value, leaves)


@given(st.integers(1, 9), st.sampled_from(BLOCKS))
def test_info_nce_and_its_gradients_are_autograds(count: int, block: int) -> None:
    inputs = (*pairs(count), torch.tensor(7.0, dtype=torch.float64))
    actual = with_gradients(lambda *given: blocked_info_nce(*given, block=block), *inputs)
    torch.testing.assert_close(actual, with_gradients(open_clip.ClipLoss(), *inputs), rtol=1e-9, atol=1e-9)


def test_info_nce_in_float32() -> None:
    x, t = pairs(64, torch.float32)
    scale = torch.tensor(30.0)
    actual = with_gradients(lambda *given: blocked_info_nce(*given, block=100), x, t, scale)
    expected = with_gradients(open_clip.ClipLoss(), x, t, scale)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 9), st.sampled_from(BLOCKS))
def test_sigmoid_and_its_gradients_are_autograds(count: int, block: int) -> None:
    inputs = (*pairs(count), *torch.tensor([7.0, -3.0], dtype=torch.float64))
    actual = with_gradients(lambda *given: blocked_sigmoid(*given, block=block), *inputs)
    torch.testing.assert_close(actual, with_gradients(sigmoid_by_autograd, *inputs), rtol=1e-9, atol=1e-9)


def test_sigmoid_equals_a_loop_and_open_clip() -> None:
    x, t = pairs()
    terms = [
        math.log(1 + math.exp((-1 if i == j else 1) * (9.0 * float(a @ b) - 4.0)))
        for i, a in enumerate(x)
        for j, b in enumerate(t)
    ]
    scale, bias = torch.tensor([9.0, -4.0], dtype=torch.float64)
    value = blocked_sigmoid(x, t, scale, bias)
    assert value.item() == pytest.approx(sum(terms) / 6, rel=1e-12)
    torch.testing.assert_close(value, open_clip.loss.SigLipLoss()(x, t, scale, bias))


def test_sigmoid_of_extreme_logits_is_finite() -> None:
    eye, scale = torch.eye(3), torch.tensor(1e4)
    value, *gradients = with_gradients(blocked_sigmoid, eye, eye.flip(0), scale, torch.tensor(0.0))
    # Two pairs are far apart where they should be close and the other way round, one is right; four cosines are 0.
    assert value.item() == pytest.approx((2 * 1e4 + 4 * math.log(2) + 2 * math.log(2)) / 3, rel=1e-4)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("loss", [blocked_info_nce, blocked_sigmoid])
def test_float32_under_autocast_and_images_without_gradient(loss: Callable[..., Tensor]) -> None:
    x, t = pairs(6, torch.bfloat16)
    scalars = torch.tensor([50.0, -10.0])[: 1 if loss is blocked_info_nce else 2]
    t.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x, t, *scalars)
    torch.testing.assert_close(value, loss(x.float(), t.detach().float(), *scalars))
    value.backward()
    assert t.grad is not None
    assert x.grad is None


def test_memory_is_that_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def recording(
        ctx: object, images: Tensor, texts: Tensor, scale: Tensor, by_logits: Callable[..., Tensor]
    ) -> object:
        def recorded(cosines: Tensor, rows: slice) -> Tensor:
            sizes.append(cosines.numel())
            return by_logits(cosines, rows)

        return _gradients(ctx, images, texts, scale, recorded)

    monkeypatch.setattr("mcip.losses.blocked._gradients", recording)
    x, t = pairs(200)
    blocked_info_nce(x, t.requires_grad_(), torch.tensor(7.0), block=1000).backward()
    assert max(sizes) <= 1000
    assert sum(sizes) == 200 * 200


def test_the_parts_of_processes_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without others to add to, each process has its own share of the gradients: they add up."""
    x, t = pairs(7)
    bias, scale = torch.tensor(-3.0, dtype=torch.float64), torch.tensor(7.0, dtype=torch.float64)
    whole = with_gradients(blocked_sigmoid, x, t, scale, bias)
    monkeypatch.setattr(Processes, "sum", lambda self, tensor: tensor)
    shares = [with_gradients(partial(blocked_sigmoid, team=Processes(rank, 3)), x, t, scale, bias) for rank in range(3)]
    torch.testing.assert_close(tuple(map(sum, zip(*shares, strict=True))), whole)


def test_shapes_must_pair() -> None:
    with pytest.raises(ModelError, match="pairs"):
        blocked_info_nce(torch.zeros(2, 3), torch.zeros(3, 3), torch.tensor(1.0))
