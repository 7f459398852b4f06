"""Tune with a loss of your own: CosFace's additive cosine margin in the place of ArcMargin.

    python examples/custom_loss.py   13 seconds of CPU time

Expected: the loss falls, and the mAP of image to image on 20 unseen products rises from 64.6 to 73.6 percent.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mcip
from mcip.data import Pixels
from mcip.toyshop.tables import Slice, write_slice
from mcip.training import EpochOrder, FitSettings, fit
from mcip.training.objectives import ImageTuning

OUT = Path("runs/custom-loss")


class CosFace(nn.Module):
    """Cross entropy over scaled cosines, that of the right class less a margin (Wang et al., CVPR 2018, equation 4).

    A class loss takes embeddings of unit length, shape (B, D), and labels, shape (B,), and gives a scalar.
    """

    def __init__(self, num_classes: int, dim: int, margin: float = 0.1, scale: float = 30.0) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, dim)))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch."""
        cosines = embeddings @ F.normalize(self.weight, dim=-1).T
        return F.cross_entropy(self.scale * (cosines - self.margin * F.one_hot(labels, cosines.shape[1])), labels)


def main() -> None:
    """Tune the toyshop model's image tower, save it, and measure it beside its base."""
    torch.manual_seed(0)
    train = write_slice(Slice("train", stream=70, products=30, images=6), OUT / "train.parquet")
    test = write_slice(Slice("test", stream=72, products=20, images=4), OUT / "test.parquet")
    table, model = mcip.read_table(train), mcip.load("toyshop")
    images = Pixels(table, model.transform("model", train=True))
    order = EpochOrder(len(table), batch_size=32, seed=0)
    class_loss = CosFace(len(set(table.labels)), model.embed_dim)
    objective = ImageTuning(model, images, order, class_loss, lr=2.5e-4, class_lr=5e-3)
    fit(objective, OUT / "checkpoints", FitSettings(steps=40, per_step=order.batch_size, device="cpu"))
    tuned = mcip.save(model, OUT / "model")
    results = mcip.evaluate({"base": "toyshop", "cosface": tuned}, OUT / "results", data=test)
    print(results.to_pandas().to_string())


if __name__ == "__main__":
    main()
