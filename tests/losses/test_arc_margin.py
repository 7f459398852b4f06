"""ArcMargin against loops over the formula, the reference's formula and cross entropy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mcip.core.errors import ConfigError, ModelError
from mcip.losses import ArcMargin, apply_margin


def naive_phi(cosine: float, margin: float) -> float:
    if cosine > math.cos(math.pi - margin):
        return math.cos(math.acos(max(-1.0, min(1.0, cosine))) + margin)
    return cosine - math.sin(math.pi - margin) * margin


def naive_loss(x: torch.Tensor, w: torch.Tensor, labels: torch.Tensor, margin: float, scale: float) -> float:
    total = 0.0
    for row, label in zip(x.tolist(), labels.tolist(), strict=True):
        logits = []
        for c, center in enumerate(w.tolist()):
            cosine = sum(a * b for a, b in zip(row, center, strict=True)) / math.hypot(*row) / math.hypot(*center)
            logits.append(scale * (naive_phi(cosine, margin) if c == label else cosine))
        total += math.log(sum(math.exp(z) for z in logits)) - logits[label]
    return total / len(x)


def reference_loss(x: torch.Tensor, w: torch.Tensor, labels: torch.Tensor, margin: float, scale: float) -> torch.Tensor:
    cosine = F.normalize(x) @ F.normalize(w).T
    sine = torch.sqrt((1.0 - cosine.square()).clamp(0, 1))
    phi = cosine * math.cos(margin) - sine * math.sin(margin)
    phi = torch.where(cosine > math.cos(math.pi - margin), phi, cosine - math.sin(math.pi - margin) * margin)
    one_hot = F.one_hot(labels, len(w))
    return F.cross_entropy(scale * (one_hot * phi + (1 - one_hot) * cosine), labels)


def batch(
    seed: int, rows: int = 7, classes: int = 5, dim: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(classes, (rows,), generator=generator)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), margin=st.floats(0, 1.5), scale=st.floats(0.5, 40))
def test_equals_a_loop_over_the_formula_and_the_reference(seed: int, margin: float, scale: float) -> None:
    torch.manual_seed(seed)
    loss = ArcMargin(5, 6, margin, scale).double()
    x, labels = batch(seed)
    value = loss(x, labels).item()
    assert value == pytest.approx(naive_loss(x, loss.weight, labels, margin, scale), rel=1e-9, abs=1e-9)
    assert value == pytest.approx(reference_loss(x, loss.weight, labels, margin, scale).item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.2, 3.0])
def test_gradients_equal_those_of_the_reference(margin: float) -> None:
    loss = ArcMargin(5, 6, margin).double()
    x, labels = batch(1)
    x.requires_grad_()
    actual = torch.autograd.grad(loss(x, labels), [x, loss.weight])
    expected = torch.autograd.grad(reference_loss(x, loss.weight, labels, margin, 30.0), [x, loss.weight])
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_gradcheck() -> None:
    x, labels = batch(2)
    loss = ArcMargin(5, 6, 0.3, 4.0).double()
    assert torch.autograd.gradcheck(
        lambda a, w: torch.func.functional_call(loss, {"weight": w}, (a, labels)), (x.requires_grad_(), loss.weight)
    )


def test_margin_zero_is_cross_entropy() -> None:
    loss = ArcMargin(5, 6, margin=0.0, scale=12.0).double()
    x, labels = batch(3)
    expected = F.cross_entropy(12.0 * F.normalize(x) @ F.normalize(loss.weight).T, labels)
    torch.testing.assert_close(loss(x, labels), expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)],
)
def test_dtypes_of_the_embeddings(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    loss = ArcMargin(5, 6)
    x, labels = batch(4)
    expected = reference_loss(x, loss.weight.double(), labels, 0.1, 30.0).item()
    low = x.to(dtype).requires_grad_()
    value = loss(low, labels)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.item() == pytest.approx(expected, rel=tolerance)
    value.backward()
    assert low.grad is not None
    assert low.grad.dtype == dtype
    assert loss.weight.grad is not None
    assert loss.weight.grad.dtype == torch.float32


def test_float32_under_autocast_forward_and_backward() -> None:
    torch.manual_seed(0)
    loss = ArcMargin(50, 64)
    x, labels = batch(5, 16, 50, 64, torch.float32)
    expected = loss(x, labels)
    (expected_gradient,) = torch.autograd.grad(expected, [loss.weight])
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x, labels)
        (gradient,) = torch.autograd.grad(value, [loss.weight])
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_gradients_at_the_poles(sign: float, dtype: torch.dtype) -> None:
    loss = ArcMargin(3, 4).to(dtype)
    x = (sign * loss.weight[[1]].detach()).requires_grad_()
    value = loss(x, torch.tensor([1]))
    value.backward()
    assert x.grad is not None
    assert loss.weight.grad is not None
    assert value.isfinite()
    assert x.grad.isfinite().all()
    assert loss.weight.grad.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(cosine=st.floats(-1.0, 1.0, width=32), margin=st.floats(0, 3.1))
def test_apply_margin_value_and_finite_gradient(cosine: float, margin: float) -> None:
    c = torch.tensor(cosine, dtype=torch.float64, requires_grad=True)
    phi = apply_margin(c, margin)
    # The two branches meet in a jump: next to it, rounding decides which one holds.
    if abs(cosine + math.cos(margin)) > 1e-9:
        assert phi.item() == pytest.approx(naive_phi(cosine, margin), abs=1e-5)
    phi.backward()
    assert c.grad is not None
    assert c.grad.isfinite()
    assert phi.item() <= cosine + 1e-12


def test_cosines_beyond_one_by_rounding_are_harmless() -> None:
    c = torch.tensor([1.0 + 1e-6, -1.0 - 1e-6], requires_grad=True)
    apply_margin(c, 0.1).sum().backward()
    assert c.grad is not None
    assert c.grad.isfinite().all()


def test_one_class_costs_nothing() -> None:
    assert ArcMargin(1, 6)(batch(0, dtype=torch.float32)[0], torch.zeros(7, dtype=torch.int64)).item() == 0.0


def test_zero_embedding_and_zero_center_are_finite() -> None:
    loss = ArcMargin(3, 4)
    torch.nn.init.zeros_(loss.weight)
    x = torch.zeros(2, 4, requires_grad=True)
    loss(x, torch.tensor([0, 1])).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert loss.weight.grad is not None
    assert loss.weight.grad.isfinite().all()


def test_centers_are_xavier_uniform_and_frozen_ones_get_no_gradient() -> None:
    loss = ArcMargin(300, 100)
    bound = math.sqrt(6 / 400)
    assert loss.weight.abs().max() <= bound
    assert loss.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    loss.weight.requires_grad_(False)
    x = torch.randn(4, 100, requires_grad=True)
    loss(x, torch.arange(4)).backward()
    assert loss.weight.grad is None


def test_two_halves_average_to_the_whole_batch() -> None:
    loss = ArcMargin(5, 6).double()
    x, labels = batch(6, rows=8)
    halves = (loss(x[:4], labels[:4]) + loss(x[4:], labels[4:])) / 2
    torch.testing.assert_close(halves, loss(x, labels))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"margin": -0.1}, "margin"),
        ({"margin": 28.6}, "radians"),
        ({"scale": 0.0}, "scale"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_bad_parameters(arguments: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        ArcMargin(**{"num_classes": 3, "dim": 4, **arguments})  # type: ignore[arg-type]


def test_wrong_dimension_names_both_shapes() -> None:
    with pytest.raises(ModelError, match=r"\(2, 5\).*\(3, 4\)"):
        ArcMargin(3, 4)(torch.zeros(2, 5), torch.tensor([0, 1]))
