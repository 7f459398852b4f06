"""Cached gradients are those of the whole batch, and take the memory of a chunk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip import models
from mcip.core.errors import ConfigError
from mcip.data import read_table
from mcip.embeddings.caption_tokens import tokenize_captions
from mcip.embeddings.encode import embed_images
from mcip.models import Model
from mcip.models.footprint import text_footprint
from mcip.training import EpochOrder
from mcip.training.objectives.text_alignment import TextAlignment, automatic_chunk
from tests.tiny import CONFIG

SIGLIP = {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "custom_text": True, "init_logit_bias": -10}}


def alignment(config: dict[str, Any], train: Path, folder: Path, **changes: Any) -> TextAlignment:
    model, table = models.from_config(config, seed=2), read_table(train)
    images = embed_images(table, model, folder / "images")
    tokens = tokenize_captions(table, model, folder / "tokens")
    return TextAlignment(model, images, tokens, EpochOrder(len(table), 30, 3), lr=1e-3, seed=3, **changes)


def step(objective: TextAlignment) -> tuple[Tensor, dict[str, Tensor]]:
    (batch,) = objective.batches(range(1))
    loss = objective.losses(batch, torch.Generator())["loss"]
    loss.backward()
    clip = objective.model.clip
    return loss.detach(), {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_cached_gradients_are_the_plain_losses(
    loss: str, grad_checkpointing: bool, train: Path, tmp_path: Path
) -> None:
    plain = alignment(SIGLIP, train, tmp_path, loss=loss)
    (batch,) = plain.batches(range(1))
    clip = plain.model.clip
    texts = F.normalize(clip.encode_text(F.pad(batch.chunks[0], (0, 16 - batch.chunks[0].shape[1]))), dim=-1)
    scale = clip.logit_scale.exp()
    if loss == "infonce":
        expected = open_clip.ClipLoss()(batch.images, texts, scale)
    else:
        expected = open_clip.loss.SigLipLoss()(batch.images, texts, scale, clip.logit_bias)
    expected.backward()
    gradients = {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}
    assert ("logit_bias" in gradients) == (loss == "sigmoid")
    for chunk in (1, 7, 30):
        cached = alignment(SIGLIP, train, tmp_path, loss=loss, chunk=chunk)
        if grad_checkpointing:
            cached.model.clip.text.transformer.grad_checkpointing = True
        value, actual = step(cached)
        torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(actual, gradients, rtol=1e-5, atol=1e-5)
        assert {"logit_scale", "text.token_embedding.weight"} <= actual.keys()


def test_chunks_meet_the_same_dropout_again(train: Path, tmp_path: Path) -> None:
    objective = alignment(CONFIG, train, tmp_path, chunk=7)
    tower: Any = objective.modules["text_tower"].tower
    seen = list[Tensor]()

    def dropped(module: nn.Module, arguments: Any, features: Tensor) -> Tensor:
        result = F.dropout(features, 0.5)
        seen.append(result.detach())
        return result

    tower.register_forward_hook(dropped)
    step(objective)
    first, again = seen[:5], seen[5:]
    torch.testing.assert_close(again[::-1], first, rtol=0, atol=0)


def test_what_backward_keeps_is_that_of_a_chunk(train: Path, tmp_path: Path) -> None:
    """Only the embeddings grow with the batch; the tensors that a graph keeps are a chunk's at any time."""

    def kept(chunk: int) -> int:
        objective = alignment(CONFIG, train, tmp_path, chunk=chunk)
        (batch,) = objective.batches(range(1))
        sizes: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            objective.losses(batch, torch.Generator())
        return sum(sizes)

    embeddings = 30 * 16
    assert kept(30) > 40 * embeddings
    assert kept(10) < 10 * embeddings


def test_captions_of_like_length_share_a_chunk(train: Path, tmp_path: Path) -> None:
    objective = alignment(CONFIG, train, tmp_path, chunk=10)
    (batch,) = objective.batches(range(1))
    widths = [tokens.shape[1] for tokens in batch.chunks]
    assert widths == sorted(widths)
    assert all(width % 8 == 0 for width in widths)
    assert [len(tokens) for tokens in batch.chunks] == [10, 10, 10]


def test_the_loss_goes_with_the_model(train: Path, tmp_path: Path) -> None:
    siglip = alignment(SIGLIP, train, tmp_path)
    assert (siglip.loss, siglip.calibrated) == ("sigmoid", True)
    by_name = [siglip.model.clip.logit_scale, siglip.model.clip.logit_bias]
    assert all(any(p is parameter for p in siglip.groups[1].parameters) for parameter in by_name)
    with torch.no_grad():
        by_name[0].fill_(4.9)
    siglip.after_step()
    assert by_name[0].item() == pytest.approx(4.9)
    infonce = alignment(SIGLIP, train, tmp_path, loss="infonce")
    assert (infonce.loss, infonce.calibrated) == ("infonce", False)
    clip = alignment(CONFIG, train, tmp_path / "clip")
    assert (clip.loss, clip.calibrated) == ("infonce", True)
    with pytest.raises(ConfigError, match="needs a logit bias"):
        alignment(CONFIG, train, tmp_path / "clip", loss="sigmoid")
    with pytest.raises(ConfigError, match="chunk is 0"):
        alignment(CONFIG, train, tmp_path / "clip", chunk=0)


def test_a_logit_scale_above_clips_bound_is_not_lowered(train: Path, tmp_path: Path) -> None:
    for start, expected in ((1.0, math.log(100)), (4.8, 4.8)):
        config = {**SIGLIP, "model_cfg": {**SIGLIP["model_cfg"], "init_logit_scale": start}}
        objective = alignment(config, train, tmp_path / str(start), loss="infonce")
        with torch.no_grad():
            objective.model.clip.logit_scale.fill_(5.5)
        objective.after_step()
        assert objective.model.clip.logit_scale.item() == pytest.approx(expected)


def test_the_automatic_chunk_is_counted(train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.from_config(CONFIG, seed=2)
    tokens = tokenize_captions(read_table(train), model, tmp_path / "tokens")
    before = parameters(model)
    hundred = text_footprint(model, 100, 16, "fp32").activation_bytes
    assert parameters(model) == before
    monkeypatch.setattr("mcip.training.objectives.text_alignment._BYTES_ELSEWHERE", hundred)
    cpu = torch.device("cpu")
    assert [automatic_chunk(model, tokens, batch, cpu) for batch in (1, 100, 101, 1000)] == [1, 100, 51, 100]
    assert automatic_chunk(model, tokens, 1000, cpu, grad_checkpointing=True) > 100


def parameters(model: Model) -> list[int]:
    return [parameter.data_ptr() for parameter in model.clip.parameters()]
