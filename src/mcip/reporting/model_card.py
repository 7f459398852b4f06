"""The card of a model on the Hugging Face hub: what it is, how it was made, what it reaches, and how to use it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from mcip.reporting import plots
from mcip.reporting.comparison import Comparison
from mcip.reporting.formats import as_markdown
from mcip.reporting.lineage import Lineage
from mcip.reporting.templating import render

PLOT = "results.png"


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the results.

    Attributes:
        repo: The repository, as OWNER/NAME.
        lineage: Where the model comes from.
        license: By the hub's name for it.
        tuned_on: The data that it was tuned on, in words; empty where it is not said.
        embed_dim: Dimension of its embeddings.
        image_size: Side of the images that it takes, in pixels.
        with_transformers: Whether the repository holds the files of `transformers` and `sentence-transformers` too.
        convertible: Whether `mcip export` can write these files.
        with_adapter: Whether the model carries a matrix that only mcip applies.
        pads_text: Whether texts have to be padded to the whole context length, as for SigLIP.
    """

    repo: str
    lineage: Lineage
    license: str
    tuned_on: str
    embed_dim: int
    image_size: int
    with_transformers: bool
    convertible: bool
    with_adapter: bool
    pads_text: bool


def model_card(facts: CardFacts, comparison: Comparison | None) -> str:
    """The content of README.md: metadata as YAML, then Markdown.

    Args:
        facts: What the card says.
        comparison: The results that it shows; None for none.
    """
    base = facts.lineage.base_repo
    metadata = ModelCardData(
        library_name="open_clip",
        license=facts.license,
        base_model=None if base is None else [base],
        tags=["clip", "mcip", "image-retrieval", *(["sentence-transformers"] if facts.with_transformers else [])],
        pipeline_tag="zero-shot-image-classification",
    )
    context: Mapping[str, Any] = {
        "metadata": metadata.to_yaml(),
        "facts": facts,
        "results": None if comparison is None else as_markdown(comparison),
        "plot": None if comparison is None or plots.dots(comparison) is None else PLOT,
    }
    return render("mcip.reporting", "model_card.md.j2", **context)


def results_plot(comparison: Comparison) -> bytes | None:
    """The plot of all tasks as PNG; None where there is nothing to plot."""
    figure = plots.dots(comparison)
    if figure is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        plots.save(figure, Path(folder), "results")
        return (Path(folder) / PLOT).read_bytes()
