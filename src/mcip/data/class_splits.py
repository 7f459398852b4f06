"""Splits of labelled images by class, so that the classes of validation and test are never seen in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcip.core.errors import DataError

SPLITS: Final = ("train", "val", "test")
# The share of the classes in each of validation and test, and the bounds of their number.
SHARE: Final = 0.15
_MOST_CLASSES: Final = 1000
LEAST_CLASSES: Final = 8
LEAST_IMAGES: Final = 40
# Two images can only be near-duplicates above this cosine, and above that of all but this share of the pairs.
_LEAST_COSINE: Final = 0.97
_QUANTILE: Final = 0.9999
_SAMPLE: Final = 1500
_BLOCK: Final = 1024


@dataclass(frozen=True)
class Split:
    """The rows of each split.

    Attributes:
        rows: The split's name, one of `SPLITS`, to its row numbers in ascending order.
        rule: How they were chosen, a sentence.
    """

    rows: dict[str, NDArray[np.int64]]
    rule: str


def split_by_class(codes: NDArray[np.int64], pairs: Sequence[tuple[int, int]], seed: int) -> Split:
    """Give each class to one split; classes that share a near-duplicate go to the same one.

    Classes with one image, which nothing can find, are trained on. Of the others a seeded 15 % are for validation and
    15 % for the test: at least 2, at most 1,000.

    Args:
        codes: The class of each row, shape (N,).
        pairs: Rows of different classes that are near-duplicates.
        seed: Seeds the choice.

    Raises:
        DataError: There are too few classes or images; the message says what would be enough.
    """
    several = check_enough(codes)
    groups = _groups([(int(codes[one]), int(codes[other])) for one, other in pairs], several.tolist())
    target = min(max(2, round(SHARE * len(several))), _MOST_CLASSES)
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    held_out: dict[str, set[int]] = {"val": set(), "test": set()}
    for place in order:
        name = min(held_out, key=lambda split: len(held_out[split]))
        # What is left must be enough to train on, so a large group of like classes is trained on.
        if len(held_out[name]) + len(groups[place]) <= target:
            held_out[name] |= set(groups[place])
    if min(map(len, held_out.values())) < 2:
        largest = max(map(len, groups))
        raise DataError(
            f"Near-duplicates join {largest} of the {len(several)} classes, which must stay in one split: too few are "
            "left to measure on. Remove duplicates (`mcip duplicates`), or give the table a column `split`."
        )
    rows = {name: np.flatnonzero(np.isin(codes, sorted(chosen))) for name, chosen in held_out.items()}
    rows["train"] = np.flatnonzero(~np.isin(codes, sorted(held_out["val"] | held_out["test"])))
    rule = (
        f"By class: {len(held_out['val'])} classes for validation, {len(held_out['test'])} for the test, drawn with "
        f"the seed {seed}; none of them is trained on. Classes that share near-duplicates stay in one split."
    )
    return Split({name: rows[name] for name in SPLITS}, rule)


def limit_validation(split: Split, codes: NDArray[np.int64], most: int, seed: int) -> Split:
    """Keep whole classes of validation, drawn with a seed, with at most so many images; two classes in any case.

    Classes of one image come last: nothing can be found by them.

    Args:
        split: The rows of each split.
        codes: The class of each row of the table, shape (N,).
        most: Images of validation.
        seed: Seeds the draw.
    """
    rows = split.rows["val"]
    if len(rows) <= most:
        return split
    names, counts = np.unique(codes[rows], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(counts[order] < 2, kind="stable")]
    fit = max(2, int((np.cumsum(counts[order]) <= most).sum()))
    kept = rows[np.isin(codes[rows], names[order[:fit]])]
    rule = f"{split.rule} Of {len(rows):,} validation images {len(kept):,}, of whole classes, are used, to save time."
    return Split({**split.rows, "val": kept}, rule)


def check_enough(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The classes with two images or more.

    Args:
        codes: The class of each row, shape (N,).

    Raises:
        DataError: There are too few of them, or too few images, to split them by class.
    """
    classes, counts = np.unique(codes, return_counts=True)
    several: NDArray[np.int64] = classes[counts > 1]
    if len(several) < LEAST_CLASSES or len(codes) < LEAST_IMAGES:
        raise DataError(
            f"There are {len(codes)} images, and {len(several)} classes with two images or more: too few to train on "
            f"some classes and to measure on others. {LEAST_IMAGES} images and {LEAST_CLASSES} such classes are "
            "enough to run, 100 classes to trust what is measured; or give the table a column `split` with the "
            "values train and test."
        )
    return several


def split_as_given(splits: Sequence[str], codes: NDArray[np.int64], pairs: Sequence[tuple[int, int]]) -> Split:
    """Take the splits that a table has, without the training images that have a near-duplicate in another split.

    Without validation rows, a fifth of the training classes is taken for it.

    Args:
        splits: The split of each row; train and test are among them.
        codes: The class of each row, shape (N,).
        pairs: Rows that are near-duplicates of each other, in whatever class.

    Raises:
        DataError: A split has too few classes.
    """
    names = np.array(splits)
    rule = "The splits are those of the table."
    if "val" not in names:
        own = np.unique(codes[names == "train"])
        chosen = own[4::5]
        names = np.where(np.isin(codes, chosen) & (names == "train"), "val", names)
        rule = f"Training and test as the table has them; for validation every fifth class of training, {len(chosen)}."
    rank = {"test": 0, "val": 1, "train": 2}
    dropped = {
        max(pair, key=lambda row: rank.get(str(names[row]), 2)) for pair in pairs if len({*names[list(pair)]}) > 1
    }
    rows = {
        name: np.array([row for row in np.flatnonzero(names == name).tolist() if row not in dropped], np.int64)
        for name in SPLITS
    }
    for name, found in rows.items():
        _, counts = np.unique(codes[found], return_counts=True)
        if (name == "train" and len(counts) < 2) or (name != "train" and (len(counts) < 2 or counts.max() < 2)):
            raise DataError(
                f"The split {name!r} has {len(found)} images of {len(counts)} classes: it needs two classes"
                f"{'' if name == 'train' else ', and one of them two images'}."
            )
    if dropped:
        rule += f" {len(dropped):,} images are left out: each is a near-duplicate of one in another split."
    trained_on = np.isin(np.unique(codes[rows["test"]]), codes[rows["train"]]).mean()
    if trained_on:
        rule += f" {100 * trained_on:.0f} % of the test classes are trained on, too: new classes may gain less."
    return Split(rows, rule)


def near_duplicates(vectors: NDArray[np.float32], parts: ArrayLike) -> list[tuple[int, int]]:
    """Pairs of rows in different parts (classes or splits) whose images are near-duplicates by their embeddings.

    Their cosine is at least 0.97, and among the highest 0.01 % of the pairs of a sample, so that a model to which all
    images are alike finds few.

    Args:
        vectors: Unit vectors, float32 of shape (N, D).
        parts: What tells the parts apart, one value per row.

    Returns:
        Pairs of row numbers, the lower first.
    """
    _, codes = np.unique(np.asarray(parts), return_inverse=True)
    sample = np.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors))).astype(np.int64)
    cosines = (vectors[sample] @ vectors[sample].T)[codes[sample][:, None] != codes[sample][None]]
    if not len(cosines):
        return []
    least = max(_LEAST_COSINE, float(np.quantile(cosines, _QUANTILE))) - 1e-6
    return list(_pairs_above(vectors, codes, least))


def _pairs_above(vectors: NDArray[np.float32], codes: NDArray[np.int64], least: float) -> Iterator[tuple[int, int]]:
    for start in range(0, len(vectors), _BLOCK):
        for first in range(start, len(vectors), _BLOCK):
            near = vectors[start : start + _BLOCK] @ vectors[first : first + _BLOCK].T >= least
            near &= codes[start : start + _BLOCK, None] != codes[None, first : first + _BLOCK]
            for one, other in np.argwhere(near).tolist():
                if start + one < first + other:
                    yield start + one, first + other


def _groups(links: Sequence[tuple[int, int]], classes: Sequence[int]) -> list[list[int]]:
    """The classes in groups that links join, in ascending order."""
    parent = {name: name for name in classes}

    def root(name: int) -> int:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in links:
        if one in parent and other in parent:
            parent[max(root(one), root(other))] = min(root(one), root(other))
    found: dict[int, list[int]] = {}
    for name in classes:
        found.setdefault(root(name), []).append(name)
    return list(found.values())
