"""`Model.encode`: what it takes for an image and for a text, and vectors in the order of its inputs."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mcip.core.errors import ModelError, UnreadableImage
from mcip.models import Model
from mcip.models.encode import EncodeInput

TEXTS = ["a cat", "two dogs on a red sofa", "mug", "star"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(5):
        values = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        paths.append(tmp_path / f"{number} of five.png")
        Image.fromarray(values).save(paths[-1])
    return paths


def test_vectors_are_those_of_the_towers_in_the_order_of_the_inputs(tiny: Model, files: list[Path]) -> None:
    transform = tiny.transform()
    images = torch.cat([tiny.embed_pixels(transform(Image.open(file))[None]) for file in files])
    texts = torch.cat([tiny.embed_tokens(tiny.tokenizer([text])) for text in TEXTS])
    np.testing.assert_allclose(tiny.encode(files, batch_size=2), images.numpy(), atol=1e-6)
    np.testing.assert_allclose(tiny.encode(TEXTS, batch_size=3), texts.numpy(), atol=1e-6)
    mixed: list[EncodeInput] = [
        files[0],
        TEXTS[0],
        str(files[1]),
        TEXTS[1],
        Image.open(files[2]),
        files[3].read_bytes(),
    ]
    expected = [images[0], texts[0], images[1], texts[1], images[2], images[3]]
    np.testing.assert_allclose(tiny.encode(mixed, batch_size=2), torch.stack(expected).numpy(), atol=1e-6)


def test_one_input_gives_one_vector(tiny: Model, files: list[Path]) -> None:
    for item in (files[0], str(files[0]), Image.open(files[0]), files[0].read_bytes(), "a cat"):
        np.testing.assert_allclose(tiny.encode(item), tiny.encode([item])[0], atol=1e-6)
    assert tiny.encode([]).shape == (0, 8)
    for many in (pd.Series(TEXTS), np.array(TEXTS), iter(TEXTS), tuple(TEXTS)):
        np.testing.assert_array_equal(tiny.encode(many), tiny.encode(TEXTS))
    assert tiny.encode(()).dtype == np.float32


def test_arrays_or_tensors_of_unit_length_or_not(tiny: Model, files: list[Path]) -> None:
    inputs: list[EncodeInput] = [*files, *TEXTS]
    unit, free = tiny.encode(inputs), tiny.encode(inputs, normalize=False, convert_to_tensor=True)
    assert isinstance(unit, np.ndarray)
    assert unit.dtype == np.float32
    assert isinstance(free, torch.Tensor)
    assert not free.requires_grad
    assert free.dtype == torch.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    assert (free.norm(dim=1) - 1).abs().min() > 0.01
    np.testing.assert_allclose(torch.nn.functional.normalize(free), unit, atol=1e-6)


def test_the_transform_is_the_requested_one(tiny: Model, files: list[Path]) -> None:
    image = Image.open(files[0])
    expected = tiny.embed_pixels(tiny.transform("paper")(image)[None])[0]
    np.testing.assert_allclose(tiny.encode(image, transform="paper"), expected, atol=1e-6)
    assert not np.allclose(tiny.encode(image), expected, atol=1e-4)


def test_processes_give_the_same_vectors_and_the_global_generator_is_left_alone(tiny: Model, files: list[Path]) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(tiny.encode(files, batch_size=2, workers=2), tiny.encode(files, batch_size=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_with_texts_of_mixed_length_get_the_vectors_of_one_thread(tiny: Model) -> None:
    batches = [["red " * count, "a mug"] for count in range(12)]
    expected = [tiny.encode(texts) for texts in batches]
    before = tiny.fingerprint
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(tiny.encode, batches * 10))
    np.testing.assert_array_equal(np.stack(found), np.stack(expected * 10))
    assert tiny.fingerprint == before


def test_strings_are_texts_unless_they_name_an_image(
    tiny: Model, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = tiny.encode(files[0])
    np.testing.assert_array_equal(tiny.encode(files[0].name), image)
    np.testing.assert_array_equal(tiny.encode(files[0].as_uri()), image)
    np.testing.assert_array_equal(tiny.encode(f"file://{files[0]}"), image)
    with fsspec.open("memory://one.png", "wb") as file:
        file.write(files[0].read_bytes())
    np.testing.assert_array_equal(tiny.encode("memory://one.png"), image)
    (tmp_path / "notes").write_text("")
    for text in ("notes", "a photo of logo.png", "x" * 5000, "\0", "~nobody/x", "", "https://example.org/page"):
        expected = tiny.embed_tokens(tiny.tokenizer([text]))[0]
        np.testing.assert_allclose(tiny.encode(text), expected, atol=1e-6)
    with pytest.raises(ModelError, match=r"There is no image file 'missing.png'.*kind=\"text\""):
        tiny.encode(["a cat", "missing.png"])
    expected = tiny.embed_tokens(tiny.tokenizer(["missing.png"]))
    np.testing.assert_allclose(tiny.encode(["missing.png"], kind="text"), expected, atol=1e-6)
    np.testing.assert_allclose(
        tiny.encode(files[0].name, kind="text"), tiny.embed_tokens(tiny.tokenizer([files[0].name]))[0], atol=1e-6
    )


def test_what_cannot_be_read_is_named(tiny: Model, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    for broken, reason in (
        (tmp_path / "broken.png", r"Input 5 \(.*broken.png\) cannot be read: not an image"),
        (tmp_path / "none.png", r"Input 5 \(.*none.png\) cannot be read: no file"),
        (tmp_path, r"Input 5 .* cannot be read"),
        (f"file://{tmp_path}/none.png", r"Input 5 .* cannot be read: no file"),
        ("memory://none.png", r"Input 5 .* cannot be read: cannot fetch it"),
        (b"no image", r"Input 5 cannot be read: not an image"),
    ):
        for workers in (0, 1):
            with pytest.raises(UnreadableImage, match=reason):
                tiny.encode([*files, broken], workers=workers)
    with pytest.raises(UnreadableImage, match=r"Input 1 \(a cat\) cannot be read"):
        tiny.encode([files[0], "a cat"], kind="image")


@pytest.mark.parametrize("item", [3, None, torch.zeros(3, 16, 16), np.zeros((16, 16, 3), np.uint8), ["a cat"]])
def test_other_types_are_refused(item: object, tiny: Model) -> None:
    with pytest.raises(ModelError, match=r"Input 1 is a \w+: encode takes texts, PIL images, and paths"):
        tiny.encode(["a cat", item])  # type: ignore[list-item]


def test_wrong_parameters_are_refused(tiny: Model, files: list[Path]) -> None:
    with pytest.raises(ModelError, match="kind is 'picture'"):
        tiny.encode("a cat", kind="picture")  # type: ignore[call-overload]
    with pytest.raises(ModelError, match='Input 1 is a PosixPath, but kind="text"'):
        tiny.encode(["a cat", files[0]], kind="text")
    with pytest.raises(ModelError, match=r"batch_size \(0\)"):
        tiny.encode("a cat", batch_size=0)


def test_progress_counts_all_inputs(tiny: Model, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from mcip.core import progress

    shown = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=shown, force_terminal=True, width=120))
    tiny.encode([*files, *TEXTS], batch_size=2)
    assert shown.getvalue() == ""
    tiny.encode([*files, *TEXTS], batch_size=2, show_progress_bar=True)
    assert "9/9" in shown.getvalue()
