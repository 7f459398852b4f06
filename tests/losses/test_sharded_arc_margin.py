"""Class centers in shards and in samples: the loss and the gradients are those of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mcip.core.errors import ConfigError, ModelError
from mcip.core.processes import processes
from mcip.core.shards import local, rows_of_shard, sharded_by_rows, whole
from mcip.losses import ArcMargin, ShardedArcMargin, apply_margin
from tests.together import run_together

ROWS, DIM = 6, 5


def _given(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    centers = torch.randn(classes, DIM, generator=generator)
    images = torch.randn(ROWS, DIM, generator=generator)
    return centers, images, torch.randint(classes, (ROWS,), generator=generator)


def _naive(centers: Tensor, images: Tensor, labels: Tensor, used: Tensor, margin: float, scale: float) -> Tensor:
    cosines = F.normalize(images, dim=1) @ F.normalize(centers, dim=1).T
    losses = []
    for cosine, label in zip(cosines, labels.tolist(), strict=True):
        logits = cosine * scale
        positive = apply_margin(cosine[label], margin) * scale
        others = [logits[c] for c in range(len(centers)) if used[c] and c != label]
        losses.append(torch.stack([positive, *others]).logsumexp(0) - positive)
    return torch.stack(losses).mean()


def test_without_shards_and_samples_it_is_arc_margin() -> None:
    centers, images, labels = _given(7)
    plain = ArcMargin(7, DIM)
    plain.weight.data.copy_(centers)
    loss = ShardedArcMargin(centers)
    loss.draw(torch.Generator())
    torch.testing.assert_close(loss(images, labels), plain(images, labels))


def test_a_sample_has_all_labels_and_the_drawn_share_of_the_others() -> None:
    centers, images, labels = _given(40)
    first, second = (centers.clone().requires_grad_() for _ in range(2))
    generator = torch.Generator().manual_seed(5)
    loss = ShardedArcMargin(first.detach(), margin=0.2, scale=8.0, sample=0.3)
    loss.draw(generator)
    used = torch.rand(40, generator=torch.Generator().manual_seed(5)) < 0.3
    used[labels] = True
    value = loss(images, labels)
    expected = _naive(second, images, labels, used, 0.2, 8.0)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(loss.weight.grad, second.grad)
    assert loss.weight.grad is not None
    assert not loss.weight.grad[~used].any()


@pytest.mark.parametrize("sample", [0.0, 1.5])
def test_a_share_is_a_share(sample: float) -> None:
    with pytest.raises(ConfigError, match="center_sample is"):
        ShardedArcMargin(torch.ones(3, DIM), sample=sample)


def test_dimensions_must_fit() -> None:
    with pytest.raises(ModelError, match="do not fit class centers"):
        ShardedArcMargin(torch.ones(3, DIM))(torch.ones(2, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize("count", [2, 3])
def test_shards_equal_the_whole(count: int, tmp_path: Path) -> None:
    run_together(count, _compare, tmp_path)
    assert len(list(tmp_path.iterdir())) == count


def _compare(folder: Path) -> None:
    team = processes()
    for classes in (2, 7, 40):  # of 2 classes, one of three processes has none
        for sample in (1.0, 0.4):
            centers, images, labels = _given(classes)
            rows = rows_of_shard(classes, team)
            shards = sharded_by_rows(centers[rows.start : rows.stop], classes, torch.device("cpu"))
            images, again = images.clone().requires_grad_(), images.clone().requires_grad_()
            loss, expected = ShardedArcMargin(shards, sample=sample), ShardedArcMargin(centers, sample=sample)
            for each in (loss, expected):
                each.draw(torch.Generator().manual_seed(3))
            value, other = loss(images, labels), expected(again, labels)
            (2 * value).backward()
            (2 * other).backward()
            assert len(local(loss.weight)) == len(rows)
            torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(images.grad, again.grad, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(whole(loss.weight.grad), expected.weight.grad, rtol=1e-5, atol=1e-5)
    (folder / str(team.rank)).touch()
