"""The comparison of methods: it ends with a table and curves, and resumes without training anything again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcip.core.files import read_json
from mcip.stages import compare_methods
from mcip.toyshop import compare


def test_methods_are_compared_and_nothing_is_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--quick", "--seeds", "1", "--out", str(tmp_path), "--methods", "IsoCLIP", "GPR-FT", "2SFT"]
    compare.main(command)
    table = capsys.readouterr().out
    assert "| base | " in table
    assert "GPR-FT (lr 0.00025, alpha" in table
    content = read_json(tmp_path / "quick" / "compare.json")
    assert content["methods"].keys() == {"IsoCLIP", "GPR-FT", "2SFT"}
    line = content["methods"]["GPR-FT"]["line"]
    realigned = content["methods"]["2SFT"]["line"]
    assert line.keys() == realigned.keys() == {"0.5", "1.0"}
    for alpha in line:
        assert line[alpha]["i2i_map"] == realigned[alpha]["i2i_map"], "Re-A leaves the images as they are"
        assert line[alpha]["i2i_map"][2] == 1
    assert (tmp_path / "quick" / "compare.png").stat().st_size > 10_000

    for name in ("isoclip", "interpolate"):
        monkeypatch.setattr(compare_methods, name, lambda *_, **__: pytest.fail("made again"))
    monkeypatch.setattr("mcip.training.fit", lambda *_, **__: pytest.fail("trained again"))
    compare.main(command)
    assert capsys.readouterr().out == table
