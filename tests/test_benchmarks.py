"""The benchmarks run, and their last line is JSON with the ratios."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import CONFIG

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def figures(name: str, *arguments: object) -> Any:
    """What a benchmark prints in its last line."""
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_metrics() -> None:
    found = figures("metrics.py", "--quick", "--only", "captions")
    assert found["captions"] == 2501
    assert all(found[f"captions_{name}"] > 0 for name in ("t2i_seconds", "i2t_seconds", "peak_gb"))


def test_tune_throughput(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    found = figures("tune_throughput.py", "--quick", "--model", tmp_path)["models"][str(tmp_path)]
    for ratio in ("mcip_vs_gpr_ft", "mcip_vs_reference", "trainer_vs_bare"):
        assert found["rounds"] == len(found["each"][ratio])
        assert math.isfinite(found[ratio])
        assert found[ratio] > 0
    assert set(found["images_per_second"]) == {"gpr-ft", "mcip", "reference", "bare"}


def test_align() -> None:
    found = figures("align.py", "--quick", "--batch", "32", "--part", "16", "--steps", "2")
    assert set(found["pairs_per_second"]) == {"stored", "on the fly", "plain", "cached"}
    assert found["tokens"] == 16
    assert all(found[ratio] > 0 for ratio in ("stored_vs_on_the_fly", "cached_vs_plain", "tokenizer_vs_open_clip"))


def test_plan_memory() -> None:
    found = figures("plan_memory.py", "--quick")
    [row] = found["sizes"]
    assert row["batch_size"] == 8
    assert row["ratio"] == pytest.approx(row["measured_gb"] / row["planned_gb"], rel=0.01)


def test_centers() -> None:
    found = figures("centers.py", "--quick", "--classes", "501", "--steps", "1")
    assert [part["centers"] for part in found["sharded"]] == [251, 250]
    for part in found["sharded"]:
        assert set(part["differences"]) == {"loss", "gradient_of_features", "gradient_of_centers"}
        assert max(part["differences"].values()) < 1e-5


def test_serve() -> None:
    found = figures("serve.py", "--quick", "--seconds", "1")
    for way in ("torch", "onnx", "processes"):
        parts = found[way]
        for part in ("load", "restart"):
            assert parts[part]["answers"] > 0
            assert parts[part]["errors"] == parts[part]["wrong"] == 0
        assert parts["restart"]["retries"] > 0
        assert parts["load"]["retries"] == 0
        assert set(parts["queries_per_forward_pass"]) == {"text", "image"}
    for ratios in ("onnx_vs_torch", "processes_vs_torch"):
        assert set(found[ratios]) == {"requests_per_second", "p99_ms"}
    assert found["vs_before"] > 0


def test_search(tmp_path: Path) -> None:
    found = figures(
        "search.py", "--size", "2000", "--dim", "32", "--seconds", "0.5",
        "--work", tmp_path, "--peers", "mcip", "usearch",
    )  # fmt: skip
    first = found["results"]["clustered"]
    assert first["mcip"]["image"]["recall"] == first["mcip"]["text"]["recall"] == 1
    assert set(first) == {"mcip", "usearch"}
    for side in first.values():
        for kind in ("image", "text"):
            assert side[kind]["recall"] >= 0.9
            assert side[kind]["p99_ms"] >= side[kind]["p50_ms"] > 0


def test_mined_captions() -> None:
    found = figures("mined_captions.py", "--images", "2000")
    assert found["images"] == 2000
    assert all(found[name] > 0 for name in ("seconds", "milliseconds_a_batch", "peak_gb"))


def test_mcip_variants(tmp_path: Path) -> None:
    found = figures("mcip_variants.py", "--quick", "--out", tmp_path, "--only", "queue of captions")
    settings = {row["setting"]: row for row in found["rows"]}
    assert list(settings)[-2:] == ["weight 0.2, queue 256", "weight 0.2, queue 1024"]
    for row in settings.values():
        assert set(row["points"]) == {"1.0", "0.85", "0.7"}
        assert all(0 < value <= 100 for point in row["points"].values() for value in point)
        assert len(row["gains"]) == (row["variant"] != "plain")


def test_gpu() -> None:
    parts = ["ViT-L-14-336", "mining", "jpeg", "resume"]
    found = figures("gpu.py", "--quick", "--only", *parts)["parts"]
    assert list(found) == parts
    assert "error" not in json.dumps(found), found
    training = found["ViT-L-14-336"]
    for row in ("gpr-ft", "mcip", "bare", "embed"):
        for name in (row, f"{row} compiled"):
            assert training[name]["images_per_second"] > 0
            assert training[name]["mfu"] > 0
    assert found["mining"]["speed"]["other_captions_than_float32"] == 0
    assert set(found["mining"]["speed"]["bare_product_seconds"]) == {"fp32", "tf32", "bf16"}
    assert found["jpeg"]["ViT-B-32 fast"]["images_per_second"] > 0
    for compile in ("off", "on"):
        assert found["resume"][f"compile {compile}"] == {"killed": True, "same_bytes": True}


def test_a_part_of_gpu_that_takes_too_long_is_stopped_and_says_so() -> None:
    found = figures("gpu.py", "--quick", "--only", "align", "--seconds", 0)
    assert found["parts"]["align"]["error"] == "stopped after 0 s"


def test_mixed_queries() -> None:
    found = figures("mixed_queries.py", "--quick")["toyshop"]
    assert set(found) == {"colour", "colour and kind"}
    for row in found.values():
        assert row["queries"] == 30
        # Both parts together find what neither does alone.
        assert row["sum"] > max(row["image"], row["text"])
    assert found["colour"]["sum"] > found["colour"]["plain sum"]


def test_search_choices() -> None:
    found = figures("search_choices.py", "--quick")
    recalls = [[recall for recall, _ in row] for row in found["texts"].values()]
    assert all(0 <= recall <= 1 for row in recalls for recall in row)
    assert recalls[0] == sorted(recalls[0])
    assert min(found["exact"].values()) > 0
    assert list(found["growth"]["added"]) == ["0.05", "0.1", "0.2", "0.3"]
    assert found["growth"]["crossover"] > 0
