"""Embeddings in fewer bytes: shortened, as bytes, or as bits; queries stay in single precision.

What is stored is x' = mean + scale * code, of unit length, where x is an embedding after it was shortened. A query is
shortened likewise and not rounded: products with it lose less than products of two rounded vectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.files import atomic_write
from mcip.core.vectors import unit_vectors

Kind: TypeAlias = Literal["float32", "float16", "int8", "binary"]
# Embeddings that means, scales and principal components are taken of, spread evenly over all of them.
SAMPLED: Final = 8192
_BITS: Final[dict[Kind, int]] = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}
_SHORTENED: Final = re.compile(r"(dim|first)=([1-9][0-9]{0,4})")


@dataclass(frozen=True)
class Compact:
    """How embeddings are stored.

    Attributes:
        kind: What a dimension becomes: a float of 4 or 2 bytes, a byte, or a bit.
        dim: Dimensions that stay; None for all.
        principal: Whether those that stay are principal components of the gallery; else they are the first ones, which
            is right for models that were trained for it (Kusupati et al., "Matryoshka Representation Learning",
            NeurIPS 2022).
    """

    kind: Kind = "float32"
    dim: int | None = None
    principal: bool = True

    @classmethod
    def parse(cls, text: str) -> Compact:
        """Read "int8", "dim=256", "first=256,binary", ...

        Raises:
            ConfigError: It says something else.

        Example:
            >>> Compact.parse("dim=256,int8")
            Compact(kind='int8', dim=256, principal=True)
        """
        kinds: list[Kind] = []
        shortened: list[tuple[int | None, bool]] = [(None, True)]
        for part in text.split(","):
            match = _SHORTENED.fullmatch(part)
            if match:
                shortened.append((int(match[2]), match[1] == "dim"))
            elif part in _BITS:
                kinds.append(part)
        if len(kinds) > 1 or len(shortened) > 2 or len(kinds) + len(shortened) - 1 != len(text.split(",")):
            raise ConfigError(
                f"embedding is {text!r}: it is float32, float16, int8 or binary; dim=256 for 256 principal components, "
                "or first=256 for the first 256 dimensions; or one of each, such as dim=256,int8."
            )
        dim, principal = shortened[-1]
        return cls(kinds[0] if kinds else "float32", dim, principal)

    def __str__(self) -> str:
        shortened = [] if self.dim is None else [f"{'dim' if self.principal else 'first'}={self.dim}"]
        return ",".join([*shortened, *([] if shortened and self.kind == "float32" else [self.kind])])

    @property
    def changes(self) -> bool:
        """Whether embeddings are not stored as the model gives them."""
        return self != Compact()

    def bytes_of(self, dim: int) -> int:
        """Bytes of one embedding of a model with `dim` dimensions."""
        return -(-(self.dim or dim) * _BITS[self.kind] // 8)


@dataclass(frozen=True)
class Codec:
    """Stores embeddings as `compact` says, fitted to a gallery.

    Attributes:
        compact: How they are stored.
        matrix: float32 (D, d), what embeddings are multiplied by to shorten them; None where nothing is to be
            multiplied.
        mean: float32 (d,), of the gallery's shortened embeddings; zeros where floats are stored.
        scale: float32 (d,): a byte c stands for mean + scale * c, a bit for mean + scale or mean - scale.
        source_dim: Dimension D of the embeddings before they are shortened.
    """

    compact: Compact
    matrix: NDArray[np.float32] | None
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    source_dim: int

    @classmethod
    def fit(cls, compact: Compact, gallery: NDArray[Any]) -> Codec:
        """Fit to embeddings of a gallery, (N, D), of which up to `SAMPLED` are looked at.

        Principal components are those of the second moments, without centering: of all subspaces theirs keeps inner
        products best (Eckart and Young, 1936), and texts are projected to it as images are. A byte's scale is a 127th
        of the largest distance from the mean, a bit's the variance divided by the mean distance, per dimension.

        Raises:
            ConfigError: More dimensions are to stay than there are, or there is no embedding.
        """
        dim = gallery.shape[1]
        if not len(gallery):
            raise ConfigError("There is no embedding to fit a compact form to.")
        if compact.dim is not None and compact.dim > dim:
            raise ConfigError(f"embedding is {compact}, but the model's embeddings have {dim} dimensions.")
        rows = np.unique(np.linspace(0, len(gallery) - 1, min(SAMPLED, len(gallery))).astype(np.int64))
        sample = np.asarray(gallery[rows], np.float32)
        matrix = None
        if compact.dim is not None and compact.principal:
            matrix = _principal_components(sample, compact.dim)
        zeros = np.zeros(compact.dim or dim, np.float32)
        plain = cls(compact, matrix, zeros, zeros, dim)
        if compact.kind in ("float32", "float16"):
            return plain
        short = plain._shortened(sample)
        mean = short.mean(0)
        distance = np.abs(short - mean)
        # With this spread, and not the mean distance, deviations keep their weight beside the mean in products.
        spread = (distance**2).mean(0) / np.maximum(distance.mean(0), 1e-12)
        scale = distance.max(0) / 127 if compact.kind == "int8" else spread
        return cls(compact, matrix, mean, np.maximum(scale, 1e-12).astype(np.float32), dim)

    def project(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Shorten queries (n, D), images or texts, without rounding them; float32 (n, d).

        Projected on principal components they keep their length there, so that products stay near the cosines of whole
        embeddings; first dimensions are brought to unit length, as models are trained for them.
        """
        vectors = np.asarray(vectors, np.float32)
        if self.matrix is not None:
            return vectors @ self.matrix
        return vectors if self.compact.dim is None else unit_vectors(vectors[:, : self.compact.dim])

    def _shortened(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Shorten what is stored; of unit length where dimensions are left out."""
        short = self.project(vectors)
        return short if self.matrix is None else unit_vectors(short)

    def compress(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """What is stored of embeddings (n, D): floats or int8 of shape (n, d), or bits as uint8 (n, ceil(d / 8))."""
        short, kind = self._shortened(vectors), self.compact.kind
        if kind == "int8":
            return np.asarray(np.clip(np.rint((short - self.mean) / self.scale), -127, 127), np.int8)
        if kind == "binary":
            return np.packbits(short >= self.mean, axis=1)
        return short.astype(kind)

    def restore(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """What stored embeddings stand for; float32 (n, d), of unit length where they are bytes or bits."""
        kind = self.compact.kind
        if kind == "binary":
            signs = 2 * np.unpackbits(codes, axis=1, count=len(self.mean)).astype(np.float32) - 1
            return unit_vectors(self.mean + self.scale * signs)
        if kind == "int8":
            return unit_vectors(self.mean + self.scale * codes.astype(np.float32))
        return np.asarray(codes, np.float32)

    def stored(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Embeddings (n, D) as they are after they were stored and read: `restore(compress(vectors))`."""
        return self.restore(self.compress(vectors))

    def write(self, file: IO[bytes]) -> None:
        """Write it as `.npz`."""
        arrays = {"mean": self.mean, "scale": self.scale} | ({} if self.matrix is None else {"matrix": self.matrix})
        np.savez(file, compact=np.array(str(self.compact)), source_dim=np.array(self.source_dim), **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, file: IO[bytes]) -> Codec:
        """Read it.

        Raises:
            ValueError: It is damaged.
        """
        try:
            with np.load(file, allow_pickle=False) as content:
                compact = Compact.parse(str(content["compact"]))
                matrix, source_dim = content.get("matrix"), int(content["source_dim"])
                return cls(compact, matrix, content["mean"], content["scale"], source_dim)
        except (EOFError, OSError, KeyError, AttributeError, BadZipFile, ConfigError) as error:
            raise ValueError(str(error)) from error

    def save(self, path: Path) -> None:
        """Write it to a file, atomically."""
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            self.write(file)

    @classmethod
    def load(cls, path: Path) -> Codec:
        """Read it from a file.

        Raises:
            ArtefactError: It is missing, cut off or damaged.
        """
        try:
            with path.open("rb") as file:
                return cls.read(file)
        except (ValueError, OSError) as error:
            raise ArtefactError(
                f"{path} is cut off or damaged ({error}). Remove its folder and make it again."
            ) from error


def _principal_components(sample: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The first eigenvectors of the second moments of (N, D), each with its largest entry positive; (D, dim)."""
    _, vectors = np.linalg.eigh(sample.astype(np.float64).T @ sample)
    first = vectors[:, ::-1][:, :dim]
    largest = first[np.abs(first).argmax(0), np.arange(dim)]
    components: NDArray[np.float32] = np.ascontiguousarray(first * np.sign(largest), np.float32)
    return components
