"""Our models in `mteb`, with the image benchmarks of MIEB.

    import mteb, mcip
    from mcip.integrations.mteb import MtebModel

    tasks = mteb.get_tasks(tasks=["CUB200I2IRetrieval", "SOPI2IRetrieval", "Flickr30kT2IRetrieval"])
    mteb.evaluate(MtebModel(mcip.load("runs/mcip/model")), tasks)

What `mteb` measures is near what `mcip evaluate --preset standard` measures, not the same:

* CUB200I2IRetrieval and SOPI2IRetrieval drop the nearest image of each query, whatever it is; our standard preset drops
  the query itself. The two differ where an image is there twice, or an embedding equals another one.
* `mteb` takes other images: CUB-200 of all 200 classes, and all of Stanford Online Products, while ours are the classes
  that metric learning tests on (the second hundred of CUB-200-2011, and the 60,502 images of Ebay_test.txt).
* Their main score is `hit_rate_at_1`, our R@1. Their `map_at_1000` counts the query among the images that it should
  have found, and cuts rankings at 1,000: it is below our mAP.
* Flickr30kT2IRetrieval and Flickr30kI2TRetrieval have `ndcg_at_10` as their main score; their `hit_rate_at_k` is our
  R@k. `recall_at_k` is the same for texts, and for images the share of the five captions that were found.
* The paper's preset prepares images otherwise: `MtebModel(model, transform="paper")` does that here, too.
* Classification is measured by logistic regression on embeddings, zero-shot with other templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from numpy.typing import NDArray

from mcip.core.choices import TransformName
from mcip.core.errors import ModelError

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

    from mcip.models import Model

_KINDS = ("image", "text")


class MtebModel(AbsEncoder):
    """A model as `mteb.evaluate` takes it.

    Inputs that have an image and a text get the normalised sum of both embeddings.

    Attributes:
        model: The model.
        transform: How images are prepared: "model" or "paper".
    """

    def __init__(self, model: Model, name: str | None = None, transform: TransformName = "model") -> None:
        """Wrap a model.

        Args:
            model: Where it is, its towers compute.
            name: What `mteb` calls it in its results, as ORGANISATION/NAME; by default made of where it was loaded
                from. The revision is its fingerprint.
            transform: "model": its own image transform; "paper": the paper's.
        """
        self.model = model
        self.transform = transform
        shown = name or "mcip/" + re.sub(r"[^\w.\-]+", "-", model.source).strip("-.")
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": shown, "revision": model.fingerprint, "embed_dim": model.embed_dim,
                "modalities": ["image", "text"], "similarity_fn_name": ScoringFunction.COSINE, "framework": ["PyTorch"],
                "n_parameters": sum(parameter.numel() for parameter in model.clip.parameters()),
                "max_tokens": model.model_cfg["text_cfg"].get("context_length", 77), "open_weights": True,
                "use_instructions": False,
            }
        )  # fmt: skip

    def encode(
        self,
        inputs: DataLoader[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Embed the batches of a loader of `mteb`: float32 (n, D) of unit length.

        Raises:
            ModelError: A batch has neither images nor texts.
        """
        modalities = [kind for kind in task_metadata.get_modalities(prompt_type) if kind in _KINDS]
        batches = [self._batch(batch, modalities) for batch in inputs]
        return np.concatenate(batches) if batches else np.empty((0, self.model.embed_dim), np.float32)

    def _batch(self, batch: Mapping[str, Any], modalities: Sequence[str]) -> NDArray[np.float32]:
        # Batches may hold more than the task's category names, and tasks without one name all that they have.
        kinds = [kind for kind in modalities if kind in batch]
        if not kinds:
            raise ModelError(f"mteb gave a batch of {', '.join(batch)}: mcip embeds images and texts.")
        parts = [
            self.model.encode(list(batch[kind]), kind=kind, transform=self.transform, batch_size=len(batch[kind]))
            for kind in kinds
        ]
        if len(parts) == 1:
            only: NDArray[np.float32] = parts[0]
            return only
        joined = np.sum(parts, axis=0)
        fused: NDArray[np.float32] = joined / np.linalg.norm(joined, axis=1, keepdims=True).clip(1e-12)
        return fused
