"""What the stages take as their inputs: in Python names, paths or objects; the command passes strings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from mcip.core.choices import Backend
from mcip.core.errors import ConfigError

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mcip.data import Table
    from mcip.embeddings.mined_captions import MinedCaptions
    from mcip.models import Model
    from mcip.retrieval.index import Index

    DataInput: TypeAlias = str | os.PathLike[str] | Table | datasets.Dataset | pd.DataFrame
    ModelInput: TypeAlias = str | os.PathLike[str] | Model
    CaptionsInput: TypeAlias = str | os.PathLike[str] | MinedCaptions
    IndexInput: TypeAlias = str | os.PathLike[str] | Index
    ColumnsInput: TypeAlias = str | Mapping[str, str]
else:
    DataInput = ModelInput = CaptionsInput = IndexInput = ColumnsInput = str


def open_model(model: ModelInput, device: str = "cpu") -> Model:
    """Load a model by its name or folder, or copy one that is loaded, so that a stage may change it."""
    from mcip.models import Model, load

    if not isinstance(model, Model):
        return load(os.fspath(model), device=device)
    copy = model.copy()
    copy.clip.to(device)
    return copy


def open_captions(captions: CaptionsInput) -> MinedCaptions:
    """Open a captions artefact that is not open yet."""
    from mcip.embeddings.mined_captions import MinedCaptions

    return captions if isinstance(captions, MinedCaptions) else MinedCaptions(captions)


def as_index(db: IndexInput, model: ModelInput | None = None, device: str = "auto", backend: Backend = "auto") -> Index:
    """An index that is open already, or one that is opened; see `mcip.open_index`.

    Raises:
        ConfigError: A model is given for an index that is open already.
    """
    from mcip.retrieval.index import Index, open_index

    if not isinstance(db, Index):
        return open_index(db, model, device, backend=backend)
    if model is not None:
        raise ConfigError(f"{db.uri} is open already: give its model to open_index.")
    return db
