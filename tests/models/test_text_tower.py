"""The text tower without padding: the features and gradients of open_clip's own."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mcip import models
from mcip.models import Model
from mcip.models.text_tower import TextTower

CONTEXT = 40


def model_of(kind: str, config: dict[str, Any]) -> Model:
    config = copy.deepcopy(config)
    text_cfg = config["model_cfg"]["text_cfg"]
    text_cfg["context_length"] = CONTEXT
    if kind != "clip":
        config["model_cfg"]["custom_text"] = True
    if kind == "both directions":
        text_cfg |= {"no_causal_mask": True, "pool_type": "last"}
    elif kind == "class token":
        text_cfg["embed_cls"] = True
        text_cfg["output_tokens"] = False
    return models.from_config(config, seed=2)


def record_lengths(model: Model) -> list[int]:
    """How many tokens each call of the transformer gets."""
    lengths: list[int] = []
    transformer = getattr(model.clip, "text", model.clip).transformer
    transformer.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    return lengths


TEXTS = ["a cat", "two dogs on a red sofa", "mug", "a " + "very " * 9 + "long way"]


@pytest.mark.parametrize("kind", ["clip", "custom"])
def test_features_and_gradients_are_those_of_open_clip(kind: str, tiny_config: dict[str, Any]) -> None:
    model = model_of(kind, tiny_config)
    tower, tokens = TextTower(model.clip), model.tokenizer(TEXTS)
    parameters = model.text_parameters()
    weights = torch.randn(len(TEXTS), model.embed_dim)

    def features_and_gradients(features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return features, torch.autograd.grad((features * weights).sum(), parameters)

    expected = features_and_gradients(model.clip.encode_text(tokens))
    lengths = record_lengths(model)
    torch.testing.assert_close(features_and_gradients(tower(tokens)), expected)
    assert lengths == [16]  # 14 tokens in the longest text


@pytest.mark.parametrize("kind", ["both directions", "class token"])
def test_towers_that_see_the_padding_get_it(kind: str, tiny_config: dict[str, Any]) -> None:
    model = model_of(kind, tiny_config)
    tokens = model.tokenizer(TEXTS)
    expected = model.clip.encode_text(tokens)
    lengths = record_lengths(model)
    assert torch.equal(TextTower(model.clip)(tokens), expected)
    assert lengths[0] >= CONTEXT


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_texts_of_any_length(words: list[int], tiny_config: dict[str, Any]) -> None:
    model = model_of("clip", tiny_config)
    tokens = model.tokenizer(["red " * count for count in words])
    with torch.no_grad():
        torch.testing.assert_close(TextTower(model.clip)(tokens), model.clip.encode_text(tokens))


def test_no_text_at_all(tiny_config: dict[str, Any]) -> None:
    model = model_of("clip", tiny_config)
    assert TextTower(model.clip)(torch.empty(0, CONTEXT, dtype=torch.int64)).shape == (0, model.embed_dim)


@pytest.mark.parametrize("kind", ["clip", "custom"])
def test_threads_with_texts_of_mixed_length_get_their_own_vectors(kind: str, tiny_config: dict[str, Any]) -> None:
    model = model_of(kind, tiny_config)
    tower = TextTower(model.clip)
    batches = [model.tokenizer(["red " * count, "a mug"]) for count in (1, 9, 17, 25, 33, 3, 11, 30)]
    with torch.no_grad():
        expected = [tower(tokens) for tokens in batches]
    before = {key: (value, value.clone()) for key, value in model.clip.state_dict().items()}

    def encode(number: int) -> Tensor:
        with torch.no_grad():
            features: Tensor = tower(batches[number % len(batches)])
        return features

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(encode, range(400)))
    for number, vectors in enumerate(found):
        assert torch.equal(vectors, expected[number % len(batches)])
    after = model.clip.state_dict()
    assert after.keys() == before.keys()
    for key, (value, copied) in before.items():
        assert after[key].data_ptr() == value.data_ptr()
        assert torch.equal(after[key], copied)
    transformer = getattr(model.clip, "text", model.clip)
    assert transformer.positional_embedding.shape[0] == CONTEXT
    assert transformer.attn_mask.shape == (CONTEXT, CONTEXT)
