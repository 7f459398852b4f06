"""IsoCLIP from its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mcip import models
from mcip.core.errors import ConfigError, ModelError
from mcip.models.isoclip import keep_shared_directions
from tests.tiny import CONFIG, TINY_SIGLIP


def test_the_projection_is_that_of_the_formula() -> None:
    model = models.from_config(CONFIG, seed=1)
    before = {name: tensor.clone() for name, tensor in model.clip.state_dict().items()}
    image = before["visual.proj"].double().numpy().T
    text = before["text_projection"].double().numpy().T
    left, values, _ = np.linalg.svd(image.T @ text)
    rank = int((values > 1e-9).sum())
    assert rank == 16
    count = len(values)
    expected = sum(image @ np.outer(left[:, k], left[:, k]) for k in range(3, count - 17))
    keep_shared_directions(model, strongest=3, weakest=17)
    after = model.clip.state_dict()
    np.testing.assert_allclose(after["visual.proj"].numpy().T, expected, atol=1e-6)
    assert [name for name, tensor in after.items() if not torch.equal(tensor, before[name])] == ["visual.proj"]


def test_a_bias_is_a_column_of_the_projection() -> None:
    model = models.from_config(CONFIG, seed=1)
    with torch.no_grad():
        weight = model.clip.visual.proj.detach().clone()
        layer = torch.nn.Linear(32, 16)
        layer.weight.copy_(weight.T)
        layer.bias.copy_(torch.linspace(-1, 1, 16))
        model.clip.visual.proj = None
        model.clip.visual.attnpool = torch.nn.Module()
        model.clip.visual.attnpool.c_proj = layer
        extended = torch.cat([layer.weight, layer.bias[:, None]], 1).double()
        left = torch.linalg.svd(extended.T @ model.clip.text_projection.double().T)[0][:, 2:30]
        expected = (extended @ left @ left.T).float()
    keep_shared_directions(model, strongest=2, weakest=2)
    torch.testing.assert_close(layer.weight.detach(), expected[:, :32], atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.bias.detach(), expected[:, 32], atol=1e-5, rtol=0)


def test_what_is_refused() -> None:
    with pytest.raises(ModelError, match="image tower"):
        keep_shared_directions(models.from_config(TINY_SIGLIP, seed=1), 1, 1)
    for strongest, weakest in ((16, 16), (-1, 0)):
        with pytest.raises(ConfigError, match="cannot be left out of 32"):
            keep_shared_directions(models.from_config(CONFIG, seed=1), strongest, weakest)
