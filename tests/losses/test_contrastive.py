"""info_nce against a loop, open_clip's loss and closed forms."""

import math

import open_clip
import pytest
import torch
from torch.nn import functional as F

from mcip.core.errors import ModelError
from mcip.losses import info_nce


def pairs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64).to(dtype)
    return x, t


def test_equals_a_loop() -> None:
    x, t = pairs()
    logits = [[7.0 * F.cosine_similarity(a, b, dim=0).item() for b in t] for a in x]
    rows = [math.log(sum(map(math.exp, row))) - row[i] for i, row in enumerate(logits)]
    columns = [math.log(sum(math.exp(row[i]) for row in logits)) - logits[i][i] for i in range(6)]
    assert info_nce(x, t, torch.tensor(7.0)).item() == pytest.approx((sum(rows) + sum(columns)) / 12, rel=1e-7)


def test_equals_open_clip() -> None:
    x, t = (F.normalize(side) for side in pairs(torch.float32))
    scale = torch.tensor(20.0)
    torch.testing.assert_close(info_nce(x, t, scale), open_clip.ClipLoss()(x, t, scale))


def test_closed_forms() -> None:
    same = torch.ones(4, 3)
    assert info_nce(same, same, torch.tensor(100.0)).item() == pytest.approx(math.log(4), rel=1e-6)
    eye = torch.eye(4)
    assert info_nce(eye, eye, torch.tensor(9.0)).item() == pytest.approx(math.log(1 + 3 * math.exp(-9.0)), rel=1e-3)


def test_gradient_reaches_the_scale() -> None:
    x, t = pairs()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(info_nce, (x.requires_grad_(), t.requires_grad_(), scale))


def test_float32_under_autocast() -> None:
    x, t = pairs(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = info_nce(x, t, torch.tensor(50.0))
    torch.testing.assert_close(value, info_nce(x.float(), t.float(), torch.tensor(50.0)))


def test_shapes_must_pair() -> None:
    with pytest.raises(ModelError, match="pairs"):
        info_nce(torch.zeros(2, 3), torch.zeros(3, 3), torch.tensor(1.0))
