"""A model in ONNX: both towers, and what is needed to feed them. PyTorch is not imported."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcip.core.artefacts import Artefact
from mcip.core.choices import Decode, TransformName
from mcip.core.errors import ModelError
from mcip.core.files import read_json
from mcip.core.optional import module
from mcip.data.pillow_transform import PillowTransform
from mcip.data.resize import ModelResize
from mcip.models.bpe import BytePairTokenizer

KIND: Final = "onnx"
CONFIG: Final = "onnx.json"
MERGES: Final = "bpe.txt.gz"
FORMAT: Final = 1


class OnnxModel:
    """An image tower and a text tower that ONNX Runtime computes on the CPU; may be used by several threads.

    Attributes:
        folder: Where it lies.
        config: What `onnx.json` says.

    Example:
        >>> import mcip, tempfile
        >>> saved = mcip.export("toyshop", tempfile.mkdtemp(), format="onnx")
        >>> saved.load().encode_texts(["a red mug", "a blue star"]).shape
        (2, 256)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Read the configuration; the towers are loaded when they are first used.

        Raises:
            ModelError: `folder` holds no ONNX model that this version can read.
            ArtefactError: A file is not what was written.
        """
        self.folder = Path(folder)
        if not is_onnx(self.folder):
            raise ModelError(
                f"{folder} holds no ONNX model: it has no {CONFIG}. `mcip export --format onnx` makes one."
            )
        Artefact.verify(self.folder, KIND)
        self.config: dict[str, Any] = read_json(self.folder / CONFIG)
        if not isinstance(self.config, dict) or self.config.get("format") != FORMAT:
            raise ModelError(
                f"{self.folder / CONFIG} is damaged or of another version of mcip: export the model again."
            )
        self._resize = ModelResize(SimpleNamespace(**self.config["preprocess_cfg"]))
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}

    @property
    def source(self) -> str:
        """The name of the model that was exported."""
        return str(self.config["source"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model that was exported, as `Model.fingerprint`."""
        return str(self.config["fingerprint"])

    @property
    def embed_dim(self) -> int:
        """Dimension D of the embeddings."""
        return int(self.config["embed_dim"])

    @property
    def backend(self) -> str:
        """What an index records that this model embeds: "onnx", or "onnx-int8" if it is quantized."""
        return "onnx" if self.config["quantize"] == "none" else f"onnx-{self.config['quantize']}"

    @cached_property
    def tokenizer(self) -> BytePairTokenizer:
        """Texts to int64 (T, context length)."""
        return BytePairTokenizer(self.folder / MERGES, **self.config["tokenizer"])

    def encode_images(
        self, images: Sequence[Image.Image], transform: TransformName = "model", batch_size: int = 64
    ) -> NDArray[np.float32]:
        """Embed images; float32 (n, D) of unit length."""
        return self.embed_prepared([self.prepare(image, transform) for image in images], batch_size)

    def prepare(self, image: Image.Image, transform: TransformName = "model") -> NDArray[np.uint8]:
        """Resize and crop one image to uint8 (3, S, S), as `ImageTransform` does outside of training.

        Raises:
            UnreadableImage: It cannot be decoded, or is too thin for resizing.
        """
        return self.transform(transform).prepare(image)

    def transform(self, name: TransformName = "model", decode: Decode = "exact") -> PillowTransform:
        """What reads image files for this model; see `mcip.data.image_transform`."""
        return PillowTransform(self._resize, name, decode)

    def embed_prepared(
        self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], batch_size: int = 64
    ) -> NDArray[np.float32]:
        """Embed what `prepare` returned; float32 (n, D) of unit length."""
        mean, std = (
            np.asarray(self.config["preprocess_cfg"][name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std")
        )
        batches = []
        for start in range(0, len(pixels), batch_size):
            values = np.stack(list(pixels[start : start + batch_size])).astype(np.float32) / np.float32(255)
            batches.append(self._run("image", (values - mean) / std))
        return self._joined(batches)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> NDArray[np.float32]:
        """Embed texts; float32 (T, D) of unit length."""
        tokens = self.tokenizer(texts)
        batches = [
            self._run("text", self._shortened(tokens[start : start + batch_size]))
            for start in range(0, len(tokens), batch_size)
        ]
        return self._joined(batches)

    def _shortened(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens without the padding behind the longest text, where it changes nothing."""
        if not self.config["shorten"]:
            return tokens
        # The end of the text has the highest number of all tokens.
        return np.ascontiguousarray(tokens[:, : int(tokens.argmax(axis=1).max()) + 1])

    def _joined(self, batches: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(batches) if batches else np.empty((0, self.embed_dim), np.float32)

    def _run(self, tower: str, values: NDArray[Any]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._session(tower).run(None, {"input": values})[0]
        return features

    def _session(self, tower: str) -> Any:
        with self._lock:
            if tower not in self._sessions:
                self._sessions[tower] = _open(self.folder / f"{tower}.onnx")
            return self._sessions[tower]


@dataclass(frozen=True)
class SavedOnnx:
    """A folder with an ONNX model that `mcip export` wrote. It stands for its path wherever a path is taken.

    Attributes:
        folder: It holds `image.onnx`, `text.onnx`, and what is needed to feed them.
    """

    folder: Path

    def __fspath__(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def __str__(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `onnx.json` says: `source`, `fingerprint`, `preprocess_cfg`, `cosine`, and other facts."""
        return self.load().config

    def load(self) -> OnnxModel:
        """Open the model."""
        return OnnxModel(self.folder)


def exported_model(name: str) -> str:
    """The name of the model that was exported to the folder `name`; `name` itself if that is no ONNX model."""
    return OnnxModel(name).source if is_onnx(name) else name


def is_onnx(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an ONNX model."""
    return (Path(folder) / CONFIG).is_file()


def runtime(name: str = "onnxruntime") -> Any:
    """ONNX Runtime, or a part of it, which reports its use to its makers unless it is told not to."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return module(name)


def _open(file: Path) -> Any:
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    threads = os.environ.get("OMP_NUM_THREADS", "")
    # 0 is a thread a core.
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    # Threads that wait by spinning take the processors from whatever else runs: a search, decoding, other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{file} cannot be opened: {error} Export the model again.") from error
