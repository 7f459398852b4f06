"""List models worth knowing: their size, and what they are good at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


@dataclass(frozen=True)
class KnownModel:
    """A model that `mcip.load` takes.

    Attributes:
        name: Its name.
        parameters_m: Parameters of both towers, in millions.
        image_parameters_m: Those of the image tower, in millions.
        embed_dim: Dimension of the embeddings.
        image_size: Side of the square image that it takes, in pixels.
        good_at: What it is good at.
        images_per_s: Images embedded per second on two CPU cores, as docs/scale.md has measured; None if not measured.
    """

    name: str
    parameters_m: float
    image_parameters_m: float
    embed_dim: int
    image_size: int
    good_at: str
    images_per_s: float | None = None


# Sizes are those that open_clip's configurations give; a test compares them.
MODELS = (
    KnownModel("mcip/ViT-L-14-336", 427.9, 304.3, 768, 336, "image search with text, released by the authors of MCIP"),
    KnownModel("mcip/ViT-SO400M-14-SigLIP-384", 878.0, 428.2, 1152, 384, "the same, the larger of the two"),
    KnownModel("toyshop", 8.4, 3.3, 256, 64, "the demo and tests only, in the package", 1249),
    KnownModel("MobileCLIP2-S0/dfndr2b", 74.8, 11.4, 512, 256, "the smallest image tower, made for phones"),
    KnownModel("ViT-B-32/openai", 151.3, 87.8, 512, 224, "a fast start, the base of much published work", 18.4),
    KnownModel("ViT-B-32-256/datacomp_s34b_b86k", 151.3, 87.9, 512, 256, "as fast, trained on DataComp's pairs"),
    KnownModel("ViT-B-16/openai", 149.6, 86.2, 512, 224, "tuning on a small GPU: finer patches than B-32"),
    KnownModel("ViT-B-16/datacomp_xl_s13b_b90k", 149.6, 86.2, 512, 224, "the same, trained on DataComp's pairs"),
    KnownModel("ViT-B-16-SigLIP2/webli", 375.2, 92.9, 768, 224, "texts in many languages, a small image tower"),
    KnownModel("ViT-L-14/openai", 427.6, 304.0, 768, 224, "comparison with published work"),
    KnownModel("ViT-L-14-336/openai", 427.9, 304.3, 768, 336, "tuning as in the paper: the base of mcip/ViT-L-14-336"),
    KnownModel("ViT-L-14-quickgelu/dfn2b", 427.6, 304.0, 768, 224, "zero-shot classes for its size"),
    KnownModel("PE-Core-L-14-336/meta", 671.1, 317.2, 1024, 336, "zero-shot classes and text search at size L"),
    KnownModel("ViT-SO400M-14-SigLIP-384/webli", 878.0, 428.2, 1152, 384, "tuning as in the paper, text search"),
    KnownModel("ViT-SO400M-16-SigLIP2-384/webli", 1136.0, 428.3, 1152, 384, "text search in many languages"),
    KnownModel("ViT-H-14-quickgelu/dfn5b", 986.1, 632.1, 1024, 224, "zero-shot classes, on a large GPU"),
    KnownModel("ViT-bigG-14/laion2b_s39b_b160k", 2539.6, 1844.9, 1280, 224, "the largest that is trained on LAION-2B"),
)


@dataclass(frozen=True)
class ModelTable:
    """The models as a table: shown in a terminal, or as a pandas frame."""

    rows: tuple[KnownModel, ...]

    def __len__(self) -> int:
        """The number of models."""
        return len(self.rows)

    def __iter__(self) -> Iterator[KnownModel]:
        """The models one by one."""
        return iter(self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """One row per model, one column per fact."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

    def __rich__(self) -> Table:
        """The table as rich shows it."""
        from rich.table import Table
        from rich.text import Text

        table = Table(
            caption="Millions of parameters (of the image tower), dimensions of an embedding, pixels of a side, "
            "images a second on two cores where measured. Every open_clip name with a pretrained tag can be used "
            "too: open_clip.list_pretrained()."
        )
        table.add_column("model", min_width=max(len(row.name) for row in self.rows))
        for title in ("parameters", "dim", "pixels", "images/s"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.rows:
            speed = "" if row.images_per_s is None else f"{row.images_per_s:,.4g}"
            parameters = f"{row.parameters_m:,.0f} ({row.image_parameters_m:,.0f})"
            described = Text(row.name).append(f"\n{row.good_at}", "dim")
            table.add_row(described, parameters, f"{row.embed_dim:,}", str(row.image_size), speed)
        return table


def models() -> ModelTable:
    """List models worth knowing, with their sizes and what they are good at. Nothing is fetched.

    Returns:
        The table, in ascending order of the image tower within the released, the packaged, and open_clip's models.

    Example:
        >>> from mcip.stages.models import models
        >>> models().to_pandas().set_index("name").loc["toyshop", "embed_dim"]
        np.int64(256)
    """
    return ModelTable(MODELS)
