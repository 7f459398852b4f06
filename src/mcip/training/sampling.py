"""Batches that are balanced by class or weighted by source: like `EpochOrder`, pure functions of the seed and the step.

Both draw a fixed number of rows from each of some pools of rows. A pool is shuffled, handed out piece by piece without
a row coming twice, and shuffled anew; what does not fill a last piece is left out of that round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError
from mcip.training.order import EpochOrder

# They keep the streams of random numbers apart.
_CLASSES: Final = 1
_ROWS: Final = 2


class ClassBalancedOrder(EpochOrder):
    """P classes with K images each in every batch.

    The classes come in rounds: each round is a new order of all of them, cut into steps of P. A class with fewer than
    K images gives each of them as often as the others, as nearly as it can be.

    Example:
        >>> order = ClassBalancedOrder(["a", "a", "b", "b", "c", "c"], batch_size=4, classes_per_batch=2, seed=0)
        >>> len({row // 2 for row in order.batch(0)}), len(order.batch(0))
        (2, 4)
    """

    def __init__(self, labels: Sequence[str | None], batch_size: int, classes_per_batch: int, seed: int) -> None:
        """Set the order.

        Args:
            labels: The label of each row.
            batch_size: P times K.
            classes_per_batch: The number P of classes.
            seed: Seeds the order.

        Raises:
            ConfigError: There are fewer than P classes, or the batch size is not a multiple of P.
        """
        super().__init__(len(labels), batch_size, seed)
        self.batch_size = batch_size
        self.steps_per_epoch = max(1, len(labels) // batch_size)
        self.pools = _pools(labels)
        if not 1 <= classes_per_batch <= len(self.pools):
            raise ConfigError(
                f"classes_per_batch is {classes_per_batch}: it is a number of classes from 1 to the "
                f"{len(self.pools)} that there are."
            )
        if batch_size % classes_per_batch:
            raise ConfigError(
                f"batch_size {batch_size} is not a multiple of classes_per_batch {classes_per_batch}: each class gives "
                "equally many images."
            )
        self.classes_per_batch = classes_per_batch

    def batch(self, step: int) -> list[int]:
        """The rows of this step, counted from 0."""
        per_batch = self.classes_per_batch
        turn, place = divmod(step, len(self.pools) // per_batch)
        classes = np.random.default_rng([self.seed, _CLASSES, turn]).permutation(len(self.pools))
        count = self.batch_size // per_batch
        drawn = [
            _piece(self.pools[number], count, turn, (self.seed, _ROWS, int(number)))
            for number in classes[place * per_batch : (place + 1) * per_batch]
        ]
        rows: list[int] = np.concatenate(drawn).tolist()
        return rows


class SourceWeightedOrder(EpochOrder):
    """Every batch holds rows of each source in proportion to the source's weight, however large the source is.

    Example:
        >>> order = SourceWeightedOrder(["a"] * 100 + ["b"] * 10, {"a": 3, "b": 1}, batch_size=8, seed=0)
        >>> sum(row >= 100 for row in order.batch(0))
        2

    Attributes:
        counts: Rows of each source in a batch: the weights' shares of the batch size, by largest remainders.
    """

    def __init__(self, sources: Sequence[str | None], weights: Mapping[str, float], batch_size: int, seed: int) -> None:
        """Set the order.

        Args:
            sources: The source of each row.
            weights: The weight of each source; 0 leaves it out.
            batch_size: Rows per step.
            seed: Seeds the order.

        Raises:
            ConfigError: A weight makes no sense or is too small for one row of a batch, a weighted source is not
                there, or one that is there has no weight.
        """
        super().__init__(len(sources), batch_size, seed)
        self.batch_size = batch_size
        self.steps_per_epoch = max(1, len(sources) // batch_size)
        names = sorted({"" if source is None else source for source in sources})
        if unknown := sorted(weights.keys() ^ set(names)):
            raise ConfigError(
                f"source_weights and the table's sources differ: {unknown[0]!r} is in one of them only. The sources "
                f"are {', '.join(map(repr, names))}: give each a weight; 0 leaves one out."
            )
        self.pools = dict(zip(names, _pools(["" if source is None else source for source in sources]), strict=True))
        self.counts = _shares({name: float(weights[name]) for name in names}, batch_size)

    def batch(self, step: int) -> list[int]:
        """The rows of this step, counted from 0."""
        drawn = [
            _piece(pool, self.counts[name], step, (self.seed, _ROWS, number))
            for number, (name, pool) in enumerate(self.pools.items())
            if self.counts[name]
        ]
        rows: list[int] = np.concatenate(drawn).tolist()
        return rows


def parse_weights(text: str) -> dict[str, float]:
    """Read weights as the command takes them.

    Raises:
        ConfigError: A pair is incomplete or comes twice, or a weight is no number.

    Example:
        >>> parse_weights("products=2,cars=0.5")
        {'products': 2.0, 'cars': 0.5}
    """
    weights: dict[str, float] = {}
    for pair in text.split(","):
        name, equals, number = (part.strip() for part in pair.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = float("nan")
        if not equals or name in weights or not 0 <= weight < float("inf"):
            raise ConfigError(f"source_weights {text!r}: {pair!r} is no pair such as products=2, each name once.")
        weights[name] = weight
    return weights


def _pools(keys: Sequence[str | None]) -> list[NDArray[np.int64]]:
    """The rows of each key, keys sorted."""
    _, numbers = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)
    rows = np.argsort(numbers, kind="stable")
    return np.split(rows, np.cumsum(np.bincount(numbers))[:-1])


def _piece(pool: NDArray[np.int64], count: int, number: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """Piece `number`, of `count` rows, of a pool that is handed out without a row coming twice in a round."""
    pieces = max(1, len(pool) // count)
    turn, place = divmod(number, pieces)
    shuffled = pool[np.random.default_rng([*seed, turn]).permutation(len(pool))]
    return np.resize(shuffled, count) if len(pool) < count else shuffled[place * count : (place + 1) * count]


def _shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in proportion to weights, by largest remainders; their sum is `total`."""
    whole = sum(weights.values())
    if whole <= 0:
        raise ConfigError("source_weights are all 0: at least one source must be drawn from.")
    exact = {name: weight / whole * total for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    for name, weight in weights.items():
        if weight > 0 and counts[name] == 0:
            raise ConfigError(
                f"The weight of the source {name!r} is less than one row of a batch of {total}: raise it or the batch "
                "size, or give it 0."
            )
    return counts
