"""What a search returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias, overload

from mcip.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture that was found.

    Attributes:
        id: The picture's id in the index.
        score: How well it fits, the higher the better: the cosine to the query where that has one part, the combined
            score of `mcip.retrieval.fusion` where it has several, what a re-ranking function gave where there is one.
        path: Its file, or URI; "table.parquet#17" for a picture embedded in row 17 (counted from 0) of a table.
        width: Of the picture, upright, in pixels.
        height: Likewise.
        metadata: The other columns of the index.
    """

    id: str
    score: float
    path: str
    width: int
    height: int
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """Pictures by falling score.

    Attributes:
        hits: The pictures.
    """

    hits: tuple[Hit, ...]

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

    def as_dict(self) -> dict[str, Any]:
        """The results as JSON takes them: values that JSON does not know become texts, NaN null."""
        return {"hits": [plain(asdict(hit)) for hit in self.hits]}


# Takes the hits by falling score and returns a new score for each, the higher the better.
Rerank: TypeAlias = Callable[[Sequence[Hit]], Sequence[float]]


def reranked(hits: Sequence[Hit], rerank: Rerank) -> list[Hit]:
    """The hits with the scores that a re-ranking function gives them, by falling score.

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
