"""Validation during training: image to image by the labels, text to image by the captions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mcip.data import Pixels, Table, read_table
from mcip.device import Precision, autocast
from mcip.embed import encode_pixels
from mcip.errors import ConfigError, DataError
from mcip.metrics import cross_modal_recall, retrieval_map
from mcip.models import Model


def validation_table(data: str, split: str | None, validation: str | None, validation_split: str | None) -> Table:
    """The table to validate on while the rows `split` of `data` are trained on; see `mcip.tune`.

    Raises:
        ConfigError: There is none, or it would be trained on as well.
    """
    if validation is not None:
        return read_table(validation, split=validation_split)
    if validation_split is None:
        raise ConfigError(
            "validate_every is set, but there is nothing to validate on: pass --validation or --validation_split."
        )
    if split in (None, validation_split):
        raise ConfigError(
            f"The rows to validate on, those of the split {validation_split!r}, would be trained on as well: "
            "pass --split with the one to train on."
        )
    return read_table(data, split=validation_split)


class Validation:
    """Scores a model that is being trained on a table that is not trained on.

    Only what is trained is run at each validation; the vectors of a locked tower are computed once, here.
    """

    def __init__(
        self,
        model: Model,
        table: Table,
        trained: Literal["image", "text", "both"],
        device: torch.device,
        workers: int = 0,
        precision: Precision = "auto",
    ) -> None:
        """Embed what the locked tower embeds.

        Raises:
            DataError: There is nothing to validate the trained tower on.
        """
        self.model, self.trained, self.device, self.precision = model, trained, device, precision
        self.transform = model.transform("model")
        self.pixels = Pixels(table, self.transform, workers=workers)
        self.labels = np.array([label or "" for label in table.labels])
        captions = [(caption, row) for row, own in enumerate(table.captions) for caption in own]
        self.captions = [caption for caption, _ in captions]
        labelled = self.labels[self.labels != ""]
        repeated = len(set(labelled)) < len(labelled)
        if not captions and (trained == "text" or not repeated):
            need = "captions" if trained == "text" else "captions, or classes with two images or more"
            raise DataError(f"{table.name} has nothing to validate on: it needs {need}.")
        model.clip.to(device)
        self.vectors = self._encode_images() if trained == "text" else None
        self.texts = self._encode_captions() if trained == "image" else None
        model.clip.to("cpu")
        self.image_of_text = np.array([row for _, row in captions], np.int64)

    def scores(self) -> dict[str, float]:
        """The scores of the model as it is now, in [0, 1]: `i2i_map` where the image tower is trained, `t2i_r5`."""
        vectors, kept = self.vectors or self._encode_images()
        scores = {}
        labels = self.labels[kept]
        labelled = labels != ""
        if self.trained != "text" and len(set(labels[labelled])) < labelled.sum():
            own, names = vectors[labelled], labels[labelled]
            scores["i2i_map"] = retrieval_map(own, own, names, names, exclude_self=True)
        if self.captions:
            texts = self.texts if self.texts is not None else self._encode_captions()
            place = np.full(len(self.labels), -1)
            place[kept] = np.arange(len(kept))
            image_of_text = place[self.image_of_text]
            known = image_of_text >= 0
            scores["t2i_r5"] = cross_modal_recall(texts[known], vectors, image_of_text[known], (5,))[5]
        return scores

    def _encode_images(self, batch_size: int = 256) -> tuple[NDArray[np.float32], list[int]]:
        rows = range(len(self.labels))
        kept: list[int] = []
        parts = []
        for pixels, readable in self.pixels.batches(rows[i : i + batch_size] for i in range(0, len(rows), batch_size)):
            parts.append(encode_pixels(self.model, self.transform.finish(pixels.to(self.device)), self.precision))
            kept += readable
        return np.concatenate(parts), kept

    def _encode_captions(self) -> NDArray[np.float32]:
        with torch.inference_mode(), autocast(self.device, self.precision):
            vectors: NDArray[np.float32] = self.model.encode_texts(self.captions).float().cpu().numpy()
        return vectors
