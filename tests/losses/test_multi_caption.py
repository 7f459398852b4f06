"""MultiCaptionArcMargin against loops over the formula and the reference's formula on its own terms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mcip.core.errors import ConfigError, ModelError
from mcip.losses import ArcMargin, MultiCaptionArcMargin


def margin_on(cosine: torch.Tensor, margin: float) -> torch.Tensor:
    sine = torch.sqrt((1.0 - cosine.square()).clamp(0, 1))
    phi = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > math.cos(math.pi - margin), phi, cosine - math.sin(math.pi - margin) * margin)


def naive_loss(
    x: torch.Tensor, t: torch.Tensor, targets: torch.Tensor, margin: float, scale: float, smoothing: float
) -> float:
    losses = []
    for row in range(len(x)):
        positives = targets[row].tolist()
        if not any(positives):
            continue
        logits = []
        for j in range(len(t)):
            cosine = F.cosine_similarity(x[row], t[j], dim=0)
            logits.append(scale * (margin_on(cosine, margin) if positives[j] else cosine).item())
        total = math.log(sum(math.exp(z) for z in logits))
        share = [is_positive / sum(positives) for is_positive in positives]
        surprisal = [total - z for z in logits]
        cross_entropy = sum(s * z for s, z in zip(share, surprisal, strict=True))
        extra = max((1 - s) * z for s, z in zip(share, surprisal, strict=True))
        losses.append(cross_entropy + smoothing * extra)
    return sum(losses) / len(losses) if losses else 0.0


def reference_loss(
    x: torch.Tensor, t: torch.Tensor, targets: torch.Tensor, margin: float, scale: float, smoothing: float
) -> torch.Tensor:
    """All rows count; the target of a row is its normalised multi-hot, all zero (nan_to_num) without captions."""
    cosine = F.normalize(x) @ F.normalize(t).T
    positive = targets.to(x.dtype)
    logits = scale * (positive * margin_on(cosine, margin) + (1 - positive) * cosine)
    soft = torch.nan_to_num(positive / positive.sum(1, keepdim=True))
    surprisal = -F.log_softmax(logits, 1)
    rows: torch.Tensor = (soft * surprisal).sum(1) + smoothing * ((1 - soft) * surprisal).max(1).values
    return rows.mean()


def batch(seed: int, rows: int = 6, captions: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    t = torch.randn(captions, 5, generator=generator, dtype=torch.float64)
    return x, t, torch.rand(rows, captions, generator=generator) < 0.25


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    margin=st.floats(0, 1.5),
    scale=st.floats(0.5, 40),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_equals_a_loop_over_the_formula(seed: int, margin: float, scale: float, smoothing: float) -> None:
    x, t, targets = batch(seed)
    value = MultiCaptionArcMargin(margin, scale, smoothing)(x, t, targets).item()
    assert value == pytest.approx(naive_loss(x, t, targets, margin, scale, smoothing), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_reference_where_every_image_has_captions(smoothing: float) -> None:
    x, t, targets = batch(0)
    targets[:, 0] |= ~targets.any(1)
    x.requires_grad_()
    actual = MultiCaptionArcMargin(smoothing=smoothing)(x, t, targets)
    expected = reference_loss(x, t, targets, 0.1, 30.0, smoothing)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual, x), torch.autograd.grad(expected, x))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_reference_with_rows_without_captions(smoothing: float) -> None:
    # The reference divides by all rows, and gives a row without captions the smoothing term over all columns.
    x, t, targets = batch(1)
    targets[:, 0] |= ~targets.any(1)
    targets[[2, 4]] = False
    expected = reference_loss(x, t, targets, 0.1, 30.0, smoothing)
    empty = (-F.log_softmax(30.0 * F.normalize(x[[2, 4]]) @ F.normalize(t).T, 1)).amax(1)
    actual = MultiCaptionArcMargin(smoothing=smoothing)(x, t, targets)
    torch.testing.assert_close((actual * 4 + smoothing * empty.sum()) / 6, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_reference_on_its_own_terms_with_duplicated_columns(smoothing: float) -> None:
    # The reference concatenates each image's captions: a shared one is two columns, each a positive of one image alone.
    x, t, _ = batch(2, rows=3, captions=4)
    columns = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3)]
    repeated = t[[caption for _, caption in columns]]
    targets = torch.tensor([[image == row for image, _ in columns] for row in range(3)])
    actual = MultiCaptionArcMargin(smoothing=smoothing)(x, repeated, targets)
    torch.testing.assert_close(actual, reference_loss(x, repeated, targets, 0.1, 30.0, smoothing))
    unique = torch.tensor([[(row, caption) in columns for caption in range(4)] for row in range(3)])
    assert MultiCaptionArcMargin(smoothing=smoothing)(x, t, unique).item() < actual.item()


def test_one_caption_an_image_is_arc_margin_with_captions_as_centers() -> None:
    x, t, _ = batch(3)
    labels = torch.tensor([0, 3, 3, 8, 1, 2])
    centers = ArcMargin(9, 5).double()
    centers.weight.data.copy_(t)
    actual = MultiCaptionArcMargin()(x, t, F.one_hot(labels, 9).bool())
    torch.testing.assert_close(actual, centers(x, labels))


def test_margin_zero_is_soft_target_cross_entropy() -> None:
    x, t, targets = batch(4)
    targets[:, 0] |= ~targets.any(1)
    soft = targets.double() / targets.sum(1, keepdim=True)
    expected = F.cross_entropy(30.0 * F.normalize(x) @ F.normalize(t).T, soft)
    torch.testing.assert_close(MultiCaptionArcMargin(margin=0.0)(x, t, targets), expected)


def test_gradcheck_with_trainable_captions() -> None:
    x, t, targets = batch(5)
    loss = MultiCaptionArcMargin(0.3, 4.0, 0.1)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, targets), (x.requires_grad_(), t.requires_grad_()))


def test_images_without_captions_contribute_nothing() -> None:
    x, t, targets = batch(6)
    targets[:, 0] |= ~targets.any(1)
    targets[2] = False
    keep = [0, 1, 3, 4, 5]
    x.requires_grad_()
    loss = MultiCaptionArcMargin(smoothing=0.1)
    value = loss(x, t, targets)
    torch.testing.assert_close(value, loss(x[keep], t, targets[keep]))
    value.backward()
    assert x.grad is not None
    assert (x.grad[2] == 0).all()
    assert (x.grad[keep] != 0).any(1).all()


@pytest.mark.parametrize("captions", [0, 4])
def test_a_batch_without_captions_is_zero_with_a_graph(captions: int) -> None:
    x = torch.randn(3, 5, requires_grad=True)
    value = MultiCaptionArcMargin(smoothing=0.1)(
        x, torch.randn(captions, 5), torch.zeros(3, captions, dtype=torch.bool)
    )
    value.backward()
    assert value.item() == 0.0
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_shards_of_a_batch_with_a_common_row_count_average_to_the_whole() -> None:
    # Two processes see the same captions: gradients are averaged over processes, so rows is the mean count.
    x, t, targets = batch(7)
    targets[:4, 0] = True
    targets[4:] = False
    targets[4, 1] = True
    loss = MultiCaptionArcMargin(smoothing=0.1)
    halves = [loss(x[part], t, targets[part], rows=torch.tensor(2.5)) for part in (slice(3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, loss(x, t, targets))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_finite_gradients_at_the_poles(sign: float) -> None:
    t = torch.randn(3, 4)
    x = (sign * t[:2]).requires_grad_()
    value = MultiCaptionArcMargin(smoothing=0.1)(x, t, torch.eye(2, 3, dtype=torch.bool))
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_float32_inside_for_low_precision_and_autocast(dtype: torch.dtype) -> None:
    x, t, targets = batch(8)
    low, low_t = x.to(dtype), t.to(dtype)
    expected = MultiCaptionArcMargin()(low.float(), low_t.float(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        value = MultiCaptionArcMargin()(low, low_t, targets)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


def test_captions_stored_in_half_precision_go_with_float32_images() -> None:
    x, t, targets = batch(9)
    images, half = x.float().requires_grad_(), t.half()
    value = MultiCaptionArcMargin()(images, half, targets)
    torch.testing.assert_close(value, MultiCaptionArcMargin()(images, half.float(), targets), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(value, images)
    assert gradient.dtype == torch.float32


def test_shapes_that_do_not_fit() -> None:
    loss = MultiCaptionArcMargin()
    with pytest.raises(ModelError, match=r"\(2, 5\).*\(3, 4\)"):
        loss(torch.zeros(2, 5), torch.zeros(3, 4), torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ModelError, match=r"\(3, 2\)"):
        loss(torch.zeros(2, 5), torch.zeros(3, 5), torch.zeros(3, 2, dtype=torch.bool))
    with pytest.raises(ConfigError, match="smoothing"):
        MultiCaptionArcMargin(smoothing=-0.1)
