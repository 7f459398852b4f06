"""Weights that are cast once give what autocast gives, to the bit."""

from __future__ import annotations

import torch

from mcip import models
from mcip.core.device import autocast
from mcip.embeddings.encode import encode_pixels, pad_batch
from mcip.embeddings.half_weights import half_weights
from tests.tiny import CONFIG


def test_vectors_are_those_of_autocast_and_the_weights_come_back() -> None:
    model = models.from_config(CONFIG, seed=1)
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {name: weight.clone() for name, weight in model.clip.visual.state_dict().items()}
    expected = encode_pixels(model, pixels, "bf16")
    with half_weights(model.clip.visual, pixels.device, "bf16"):
        cast = [weight for weight in model.clip.visual.parameters() if weight.dtype == torch.bfloat16]
        assert len(cast) > 5
        assert (encode_pixels(model, pixels, "bf16") == expected).all()
    for name, weight in model.clip.visual.state_dict().items():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])


def test_float32_stays_as_it_is() -> None:
    layer = torch.nn.Linear(3, 2)
    with half_weights(layer, torch.device("cpu"), "fp32"), autocast(torch.device("cpu"), "fp32"):
        assert layer.weight.dtype == torch.float32


def test_batches_arepad_batch_up() -> None:
    pixels = torch.ones(2, 3, 4, 4)
    filled = pad_batch(pixels, 5)
    assert filled.shape == (5, 3, 4, 4)
    assert torch.equal(filled[:2], pixels)
    assert filled[2:].abs().sum() == 0
    assert pad_batch(pixels, 0) is pixels
