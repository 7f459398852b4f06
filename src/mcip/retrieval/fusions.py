"""Queries of several parts by each fusion, and what unrelated ones score."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from threading import Lock
from typing import Final

from mcip.core.choices import Fusion
from mcip.core.errors import ConfigError, McipError
from mcip.core.files import read_json, write_json
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.null_scores import calibrate_mixed
from mcip.retrieval.ann.opening import EmbedTexts, unrelated_texts
from mcip.retrieval.contrast import Contrast, load_contrast
from mcip.retrieval.fused import basic, product
from mcip.retrieval.fusion import Part
from mcip.retrieval.ranking import Query
from mcip.retrieval.score_calibration import NullDistribution, ScoreCalibration

# Images up to which the fusions other than the sum are calibrated at the first such query: in about half a second.
_QUICK: Final = 2_000
_OTHERS: Final[tuple[Fusion, ...]] = ("product", "basic")


class Fusions:
    """Makes queries of their parts for one version of an index; may be used by several threads."""

    def __init__(self, engine: Engine, embed_texts: EmbedTexts) -> None:
        """Measure nothing yet.

        Args:
            engine: The index.
            embed_texts: Embeds texts by the index's model.
        """
        self._engine = engine
        self._embed_texts = embed_texts
        self._lock = Lock()
        self._calibrations: dict[Fusion, ScoreCalibration] = {}

    def query(self, parts: Sequence[Part], fusion: Fusion) -> Query:
        """The query of these parts, as it is searched; a single part stays as it is.

        Raises:
            ConfigError: There is no such fusion, or it does not take such parts.
        """
        if len(parts) == 1 and parts[0].weight > 0:
            return parts[0]
        background = self._engine.background
        if fusion == "product":
            return product(parts, background)
        if fusion == "basic":
            return basic(parts, background, self._contrast)
        if fusion != "sum":
            raise ConfigError(f"fusion is {fusion!r}: it must be sum, product or basic.")
        return background.standardized(parts)

    def calibration(self, fusion: Fusion) -> ScoreCalibration:
        """What unrelated queries score; that of product and basic is kept beside the derived files."""
        if fusion == "sum":
            return self._engine.calibration
        with self._lock:
            if fusion not in self._calibrations:
                self._calibrations[fusion] = self._load(fusion)
            return self._calibrations[fusion]

    def prepare(self) -> None:
        """Calibrate every fusion now, where the first such query would wait for it."""
        if len(self._engine) > _QUICK:
            for fusion in _OTHERS:
                self.calibration(fusion)

    @cached_property
    def _contrast(self) -> Contrast:
        engine = self._engine
        return load_contrast(engine.folder, engine.table.identity.fingerprint, self._embed_texts, engine.background)

    def _load(self, fusion: Fusion) -> ScoreCalibration:
        state, path = self._engine.state, self._engine.folder / f"{fusion}.scores.json"
        # What was taken before the scores of the sum were taken anew is taken anew as well.
        key = [
            state.table,
            state.generation,
            asdict(state.files[state.scores]) if state.scores in state.files else None,
        ]
        with contextlib.suppress(OSError, McipError, TypeError, KeyError, AttributeError):
            stored = read_json(path)
            if stored["key"] == key:
                return ScoreCalibration({kind: NullDistribution(**null) for kind, null in stored["kinds"].items()})
        texts = unrelated_texts(self._engine.folder, state)
        null = calibrate_mixed(self._engine, texts, lambda parts: self.query(parts, fusion))
        calibration = ScoreCalibration({} if null is None else {"mixed": null})
        # In a place that cannot be written to, each process takes it.
        with contextlib.suppress(OSError):
            write_json(path, {"key": key, "kinds": {kind: asdict(one) for kind, one in calibration.kinds.items()}})
        return calibration
