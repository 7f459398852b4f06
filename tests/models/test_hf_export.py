"""A model in `transformers` and `sentence-transformers` embeds as it does here, and is written only where it does."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mcip import models
from mcip.core.errors import ConfigError, ModelError
from mcip.models import Model, SavedTransformers, hf_export
from mcip.models.export_probes import probe_images, probe_texts
from mcip.models.hf_export import write_transformers
from mcip.models.hf_towers import converted_state, convertible_names, family_of
from mcip.stages.export import export
from tests.tiny import CONFIG, TINY_SIGLIP

transformers = pytest.importorskip("transformers")

VARIANTS: dict[str, dict[str, Any]] = {
    "gelu, squashed": {},
    "quick gelu, cropped": {"quick_gelu": True, "preprocess_cfg": {"size": 32, "std": [0.3, 0.4, 0.5]}},
    "custom text, bilinear": {"custom_text": True, "preprocess_cfg": {"size": 32, "interpolation": "bilinear"}},
}


@timm.models.register_model
def tiny_siglip_tower(num_classes: int, global_pool: Any, img_size: int = 32, **_: Any) -> Any:
    """SigLIP's image tower, small enough for tests."""
    return timm.models.vision_transformer.VisionTransformer(
        img_size=img_size, patch_size=8, embed_dim=32, depth=2, num_heads=2, class_token=False, global_pool=global_pool,
        num_classes=num_classes,
    )  # fmt: skip


def variant(name: str) -> Model:
    changes = copy.deepcopy(VARIANTS[name])
    preprocess = changes.pop("preprocess_cfg", CONFIG["preprocess_cfg"])
    return models.from_config({"model_cfg": CONFIG["model_cfg"] | changes, "preprocess_cfg": preprocess}, seed=1)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A SigLIP with a tokenizer of words in its own folder, with the number 1 for padding."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    config = copy.deepcopy(TINY_SIGLIP)
    config["model_cfg"]["embed_dim"] = 32
    config["model_cfg"]["vision_cfg"] = {
        "timm_model_name": "tiny_siglip_tower", "timm_pool": "map", "timm_proj": "none", "image_size": 32,
    }  # fmt: skip
    config["model_cfg"]["text_cfg"] |= {"norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}}
    config["preprocess_cfg"]["size"] = 32
    folder = tmp_path_factory.mktemp("siglip")
    words = ["<unk>", "</s>", "a", "red", "mug", "star", "on", "wooden", "table", "dog", "photo", "of", "café", "12"]
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="</s>", eos_token="</s>"
    ).save_pretrained(folder)
    model = models.from_config(config, seed=1)
    model.folder = folder
    return model


def embedded(folder: Path, images: list[Image.Image], texts: list[str], padding: str | bool = True) -> Any:
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        inputs = processor(text=texts, images=images, padding=padding, truncation=True, return_tensors="pt")
        output = model(**inputs)
    return output.image_embeds.numpy(), output.text_embeds.numpy()


def least(expected: Any, actual: Any) -> float:
    return float((expected * actual).sum(1).min())


def even_squares(side: int) -> list[Image.Image]:
    return [image.resize((side + 4 * at, side + 4 * at)) for at, image in enumerate(probe_images(side, 6))]


@pytest.mark.parametrize("name", VARIANTS)
def test_clip_from_an_image_and_a_text_on(name: str, tmp_path: Path) -> None:
    model = variant(name)
    folder = write_transformers(model, tmp_path / "hf")
    shutil.move(folder, tmp_path / "elsewhere")
    texts = [text for text in probe_texts() if text.strip()]
    images, encoded = embedded(tmp_path / "elsewhere", even_squares(32), texts)
    np.testing.assert_allclose(encoded, model.encode(texts, kind="text"), atol=1e-5)
    assert least(images, model.encode(even_squares(32))) > 1 - 1e-4
    facts = SavedTransformers(tmp_path / "elsewhere").manifest
    assert facts["family"] == "clip"
    assert max(facts["difference"].values()) < 1e-5


def test_pillow_prepares_the_same_pixels(tmp_path: Path) -> None:
    model = variant("quick gelu, cropped")
    folder = write_transformers(model, tmp_path / "hf")
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    transform = model.transform()
    # 32 x 48 leaves 16 pixels over, which both crop alike.
    for image in [Image.new("RGB", (64, 96), "red"), *(image.resize((64, 96)) for image in probe_images(32, 4))]:
        expected = transform.finish(transform.prepare(image)[None])[0]
        actual = processor(images=[image], return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(actual.float(), expected, atol=1e-5, rtol=0)


def test_siglip_from_an_image_and_a_text_on(siglip: Model, tmp_path: Path) -> None:
    folder = write_transformers(siglip, tmp_path / "hf")
    texts = ["A red_mug, on a wooden table!", "a star", "café " * 30]
    images, encoded = embedded(folder, even_squares(32), texts, padding="max_length")
    np.testing.assert_allclose(encoded, siglip.encode(texts, kind="text"), atol=1e-5)
    assert least(images, siglip.encode(even_squares(32))) > 1 - 1e-4
    assert SavedTransformers(folder).manifest["family"] == "siglip"
    converted = transformers.AutoModel.from_pretrained(folder)
    assert converted.logit_scale.item() == pytest.approx(siglip.clip.logit_scale.item())
    assert converted.logit_bias.item() == pytest.approx(-10)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_sentence_transformers(family: str, siglip: Model, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = siglip if family == "siglip" else variant("gelu, squashed")
    folder = write_transformers(model, tmp_path / "st", sentence=True)
    loaded = library.SentenceTransformer(str(folder), device="cpu")
    texts = ["a red mug", "two dogs on a wooden table", "star"]
    vectors = loaded.encode([*even_squares(32)], show_progress_bar=False)
    assert least(vectors, model.encode(even_squares(32))) > 1 - 1e-4
    encoded = loaded.encode(texts, show_progress_bar=False)
    assert least(encoded, model.encode(texts)) > 1 - 1e-5
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([vectors, encoded]), axis=1), 1, atol=1e-5)


def test_the_stage_says_what_it_wrote(base: Path, tmp_path: Path) -> None:
    saved = export(base, tmp_path / "hf", format="hf")
    assert isinstance(saved, SavedTransformers)
    assert saved.manifest["source"] == str(base)
    with pytest.raises(ConfigError, match="format hf writes a folder"):
        export(base, tmp_path / "hf.safetensors", format="hf")
    with pytest.raises(ModelError, match="does not hold a model that mcip exported for transformers"):
        export(base, base, format="hf")


def test_what_transformers_has_not_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"toyshop cannot be written .* its image tower is a ResNet.* ViT-L-14-336,"):
        export("toyshop", tmp_path / "hf", format="hf")
    names = convertible_names()
    assert {"ViT-B-32", "ViT-L-14-336", "ViT-bigG-14", "ViT-SO400M-14-SigLIP-384", "ViT-B-16-SigLIP2"} <= set(names)
    assert not {"RN50", "coca_ViT-B-32", "EVA02-L-14", "PE-Core-L-14-336", "MobileCLIP2-S2"} & set(names)
    config = copy.deepcopy(CONFIG["model_cfg"])
    config["vision_cfg"]["pool_type"] = "avg"
    with pytest.raises(ModelError, match="vision_cfg has pool_type = 'avg'"):
        family_of(config)


def test_preprocessing_and_cleaning_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    padded = models.from_config({**CONFIG, "preprocess_cfg": {"size": 32, "resize_mode": "longest"}})
    with pytest.raises(ModelError, match="pads images"):
        write_transformers(padded, tmp_path / "hf")
    cleaned = copy.deepcopy(CONFIG)
    cleaned["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    with pytest.raises(ModelError, match="clean = 'canonicalize'"):
        write_transformers(models.from_config(cleaned), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_tower_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converted_state

    def changed(*arguments: Any) -> dict[str, torch.Tensor]:
        state = whole(*arguments)
        return {name: value + 0.01 * ("mlp.fc1.bias" in name) for name, value in state.items()}

    monkeypatch.setattr(hf_export, "converted_state", changed)
    with pytest.raises(ModelError, match=r"The image tower of .* differs in transformers"):
        write_transformers(variant("gelu, squashed"), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
