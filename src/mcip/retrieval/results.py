"""What a search returns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

from mcip.core.errors import ConfigError, UnreadableImage

if TYPE_CHECKING:
    import pandas as pd

    from mcip.retrieval.results_table import ResultsTable

# Images that a notebook shows of one search.
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Hit:
    """One image that was found.

    Attributes:
        id: The image's id in the index.
        score: How well it fits, the higher the better: the cosine to the query where that has one part; where it has
            several, how many standard deviations of the query's scores it lies above the average image of the index;
            what a re-ranking function gave where there is one.
        path: Its file, or URI; "table.parquet#17" for an image embedded in row 17 (counted from 0) of a table.
        width: Of the image, upright, in pixels.
        height: Likewise.
        metadata: The other columns of the index.
        others: Where results are collapsed, those that this one stands for, in descending order of score.
    """

    id: str
    score: float
    path: str
    width: int
    height: int
    metadata: dict[str, Any]
    others: tuple[Hit, ...] = ()


# Returns the JPEG thumbnail of an image, by its id; raises UnreadableImage.
ThumbnailOf: TypeAlias = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Results(Sequence[Hit]):
    """Hits in descending order of score: a sequence that shows itself as a table, and with its images in a notebook.

    Attributes:
        hits: The hits.
        version: The version of the index that they are of.
        line: The score that one in a thousand unrelated queries reaches: hits below it match no better than for those.
            None where it is not known, or scores are of another kind.

    Example:
        >>> results = index.search(text="a red mug", k=3)
        >>> results[0].path
        >>> results.to_pandas().query("width > 500")
    """

    hits: tuple[Hit, ...]
    version: int | None = field(default=None, compare=False)
    line: float | None = field(default=None, compare=False)
    _thumbnail: ThumbnailOf | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, at: int) -> Hit: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, at: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[at]

    def to_list(self) -> list[dict[str, Any]]:
        """One dictionary per hit, with the fields of `Hit`."""
        return [asdict(hit) for hit in self.hits]

    def to_pandas(self) -> pd.DataFrame:
        """One row per hit: id, score, path, width, height, then the index's other columns.

        Where results are collapsed, `others` is the number of those that a hit stands for.
        """
        import pandas as pd

        names = ["id", "score", "path", "width", "height"]
        columns = {name: [getattr(hit, name) for hit in self.hits] for name in names}
        # Only the score can clash: the index renames columns of a source that are called like its others.
        columns |= {
            f"source_{name}" if name in names else name: [hit.metadata.get(name) for hit in self.hits]
            for name in self.metadata_names
        }
        if self._collapsed:
            columns["others"] = [len(hit.others) for hit in self.hits]
        return pd.DataFrame(columns)

    def to_json(self) -> str:
        """The hits as JSON: `{"hits": [...]}`; values that JSON does not know become texts, NaN null."""
        return json.dumps({"hits": plain(self.to_list())}, ensure_ascii=False, indent=2)

    def paths(self) -> str:
        """One path per line."""
        return "\n".join(hit.path for hit in self.hits)

    def __rich__(self) -> ResultsTable:
        from mcip.retrieval.results_table import ResultsTable

        return ResultsTable(self)

    def _repr_html_(self) -> str:
        """The images, for a notebook: as many as fit into one answer, as self-contained HTML."""
        import base64

        from jinja2 import Environment, PackageLoader

        shown = []
        for hit in self.hits[:_SHOWN]:
            try:
                small = None if self._thumbnail is None else self._thumbnail(hit.id)
            except UnreadableImage:
                small = None
            facts = [f"{name}: {brief(value)}" for name, value in hit.metadata.items() if value is not None]
            shown.append((hit, base64.b64encode(small).decode() if small else None, "\n".join([hit.path, *facts])))
        environment = Environment(loader=PackageLoader("mcip.retrieval"), autoescape=True, trim_blocks=True)
        template = environment.get_template("results.html.j2")
        return template.render(shown=shown, more=len(self.hits) - len(shown))

    @property
    def _collapsed(self) -> bool:
        return any(hit.others for hit in self.hits)

    @property
    def metadata_names(self) -> list[str]:
        """The names of all columns of metadata that a hit has."""
        return list(dict.fromkeys(name for hit in self.hits for name in hit.metadata))


# Takes hits in descending order of score and returns a new score for each, the higher the better.
Rerank: TypeAlias = Callable[[Sequence[Hit]], Sequence[float]]


def reranked(hits: Sequence[Hit], rerank: Rerank) -> list[Hit]:
    """The hits with the scores that a re-ranking function gives them, in descending order of score.

    Raises:
        ConfigError: It does not give one score for each.
    """
    scores = [float(score) for score in rerank(hits)]
    if len(scores) != len(hits):
        raise ConfigError(
            f"The re-ranking function gave {len(scores)} scores for {len(hits)} hits: one each is needed."
        )
    rescored = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
    return sorted(rescored, key=lambda hit: -hit.score)


def plain(value: Any) -> Any:
    """A value in the types of JSON."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def brief(value: Any) -> str:
    """A value of metadata as a text."""
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)


def printable(text: str) -> str:
    """A text on one line, with control characters escaped, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
