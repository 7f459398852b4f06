"""What a benchmark is: its files, its queries, gallery and relevance, and the counts by which they are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mcip.core.errors import DataError
from mcip.data import Table
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset, SelfMatch
from mcip.evaluation.tasks import Kind


@dataclass(frozen=True)
class Retrieval:
    """Image to image: queries, a gallery, and what is relevant.

    Attributes:
        queries: The query images; their labels say what is relevant to them, unless `truth` does.
        gallery: The images that are ranked, in one or more tables; empty where the queries are ranked among themselves.
        truth: Per query the gallery rows under "easy", "hard" and "junk", as `mcip.metrics.revisited_map` takes them.
        parts: Sets of labels, by the name under which the mean over their queries is given too.
        ks: The k of R@k.
        at: Cut rankings after so many images; rankings are whole for None.
    """

    queries: Table
    gallery: Sequence[Table] = ()
    truth: Sequence[Mapping[str, Sequence[int]]] | None = None
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    ks: tuple[int, ...] = (1, 5, 10)
    at: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many images, classes, or queries and gallery images there are."""
        gallery = {"gallery": sum(map(len, self.gallery))} if self.gallery else {}
        return {"queries": len(self.queries), **gallery, "classes": _classes(self.queries)}

    @property
    def fingerprint(self) -> str:
        """Identifies the images and what is relevant."""
        truth = [{kind: list(rows) for kind, rows in one.items()} for one in self.truth or ()]
        facts = (truth, sorted(map(str, self.parts)), self.ks, self.at)
        return _fingerprint([self.queries, *self.gallery], facts)


@dataclass(frozen=True)
class Classification:
    """Weighted k-NN: labelled images that vote, and labelled images that are classified.

    Attributes:
        train: The images that vote.
        test: The images that are classified.
    """

    train: Table
    test: Table

    @property
    def counts(self) -> dict[str, int]:
        """How many images vote, how many are classified, and how many classes there are to choose from."""
        return {"train": len(self.train), "test": len(self.test), "classes": _classes(self.train)}

    @property
    def fingerprint(self) -> str:
        """Identifies the images and their classes."""
        return _fingerprint([self.test, self.train], ())


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot classification: labelled images and a name for every class.

    Attributes:
        images: The images; their labels are keys of `names`.
        names: Class key to class name, in order.
        candidates: The keys among which is chosen; all of `names` for None.
    """

    images: Table
    names: Mapping[str, str]
    candidates: tuple[str, ...] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many images there are, and of how many classes."""
        return {"images": len(self.images), "classes": _classes(self.images)}

    @property
    def fingerprint(self) -> str:
        """Identifies the images, their classes and the names of the classes."""
        return _fingerprint([self.images], (list(self.names.items()), self.candidates))


@dataclass(frozen=True)
class CrossModal:
    """Retrieval between images and their captions, in either direction.

    Attributes:
        images: The images with their captions.
    """

    images: Table

    @property
    def counts(self) -> dict[str, int]:
        """How many images and captions there are."""
        return {"images": len(self.images), "captions": sum(map(len, self.images.captions))}

    @property
    def fingerprint(self) -> str:
        """Identifies the images and captions."""
        return _fingerprint([self.images], ())


@dataclass(frozen=True)
class TextRetrieval:
    """Text to image with classes: the images of its label are relevant to a text.

    Attributes:
        texts: The queries.
        labels: The label of each text.
        gallery: The images that are ranked; those without a label are relevant to no text.
        at: Cut rankings after so many images.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    gallery: Sequence[Table]
    at: int

    @property
    def counts(self) -> dict[str, int]:
        """How many texts and images there are."""
        return {"queries": len(self.texts), "gallery": sum(map(len, self.gallery))}

    @property
    def fingerprint(self) -> str:
        """Identifies texts, images and labels."""
        return _fingerprint(self.gallery, (self.texts, self.labels, self.at))


@dataclass(frozen=True)
class ComposedRetrieval:
    """An image and a text to image: each object has its own gallery.

    Attributes:
        queries: The query images, each once.
        query_rows: Of each query, the row of its image in `queries`.
        texts: The text of each query.
        objects: The object of each query, in whose gallery it is looked for.
        gallery: The gallery images, each once.
        entries: Of each object, the rows of its gallery, and the text to which each row is relevant.
    """

    queries: Table
    query_rows: tuple[int, ...]
    texts: tuple[str, ...]
    objects: tuple[str, ...]
    gallery: Table
    entries: Mapping[str, tuple[tuple[int, str], ...]]

    @property
    def counts(self) -> dict[str, int]:
        """How many queries and objects there are."""
        return {"queries": len(self.texts), "objects": len(set(self.objects))}

    @property
    def fingerprint(self) -> str:
        """Identifies images, texts and what is relevant."""
        facts = (self.query_rows, self.texts, self.objects, sorted(self.entries.items()))
        return _fingerprint([self.queries, self.gallery], facts)


Data: TypeAlias = Retrieval | Classification | ZeroShot | CrossModal | TextRetrieval | ComposedRetrieval
Read: TypeAlias = Callable[[Places, Preset], Data]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: one number in a table.

    Attributes:
        name: How the command names it.
        title: How tables call it.
        kind: The kind of task.
        needs: The data sets it is made of, as `mcip.evaluation.dataset_roots.FOLDERS` names them.
        read: From the folders to the data.
        counts: The official numbers, by the names of the data's `counts`; several where releases differ.
        metric: The metric that stands for it; that of its kind where empty.
        self_match: In the preset "paper", what happens to a query in its own ranking.
    """

    name: str
    title: str
    kind: Kind
    needs: tuple[str, ...]
    read: Read
    counts: Mapping[str, int | tuple[int, ...]]
    metric: str = ""
    self_match: SelfMatch = "excluded"

    def wrong_counts(self, data: Data) -> list[str]:
        """What is not as many as the official release has, in words."""
        found = data.counts
        wrong = []
        for what, official in self.counts.items():
            allowed = official if isinstance(official, tuple) else (official,)
            if found[what] not in allowed:
                wrong.append(f"{found[what]:,} {what} where there must be {' or '.join(f'{n:,}' for n in allowed)}")
        return wrong

    def check(self, data: Data) -> None:
        """Check the official numbers.

        Raises:
            DataError: They are others; the message has both.
        """
        if wrong := self.wrong_counts(data):
            raise DataError(
                f"{self.title} is not the official release: {'; '.join(wrong)}. Complete it, or measure it as it is "
                "with --allow-counts; the results file then says so."
            )


def _classes(table: Table) -> int:
    return len({label for label in table.labels if label is not None})


def _fingerprint(tables: Sequence[Table], facts: Any) -> str:
    digest = hashlib.sha256(repr(facts).encode())
    for table in tables:
        digest.update(table.fingerprint.encode())
    return digest.hexdigest()
