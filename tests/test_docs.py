"""What README and docs show is run: Python blocks as they stand, commands as far as their parser.

The tutorials are run, and references between pages are checked, when the site is built.
"""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
from pathlib import Path
from types import ModuleType

import pytest

import mcip
from mcip.cli import main as cli
from mcip.cli.main import UsageError
from mcip.toyshop.tables import Slice, draw_product

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "tutorials").glob("*.md"))]
PYTHON = [
    (page.name, block)
    for page in PAGES
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]
COMMAND = re.compile(r"(?:^|`)(mcip [a-z]+ [^`\n]*--[^`\n]*)", re.MULTILINE)
COMMANDS = sorted(
    {
        match.strip()
        for page in PAGES
        for match in COMMAND.findall(page.read_text(encoding="utf-8"))
        if "--config" not in match and "--print-config" not in match
    }
)


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[f"{page}-{n}" for n, (page, _) in enumerate(PYTHON)])
def test_python_blocks_run(page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos" / "mug"
    folder.mkdir(parents=True)
    for row in draw_product(Slice("docs", stream=90, products=1, images=2), 0):
        (folder / f"{row['id']}.jpg").write_bytes(row["image"]["bytes"])
    exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    assert len(COMMANDS) > 10
    parsed = cli.parse(shlex.split(command)[1:])
    assert parsed is not None
    stage, values = parsed
    assert stage == command.split()[1]
    assert values


def test_a_wrong_command_would_not_parse() -> None:
    with pytest.raises(UsageError):
        cli.parse(["embed", "--dta", "photos"])


def test_links_in_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", ["method.svg", "stages.svg"])
def test_drawings_are_up_to_date(name: str) -> None:
    drawings = runpy.run_path(str(DOCS / "drawings.py"))["DRAWINGS"]
    assert (DOCS / "images" / name).read_text(encoding="utf-8") == drawings[name](), "make drawings"


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "reference/python.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(?:   )?(\w+)$", text, re.MULTILINE))
    names = {name for name in mcip.__all__ if not name.startswith("__")}
    assert names <= listed
    modules = {name for name in names if isinstance(getattr(mcip, name), ModuleType)}
    assert all((DOCS / "reference" / f"{name}.md").exists() for name in modules)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_page_of_a_command_has_its_parameters(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = runpy.run_path(str(DOCS / "_ext/reference.py"))["page"](command)
    assert page.startswith(f"# mcip {command}\n")
    assert cli.main([command, "--help"]) == 0
    [usage] = re.findall(r"^Usage: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert f"\n{usage}\n" in page
    flags = {f"--{name.replace('_', '-')}" for name in inspect.signature(cli.stage_of(command)).parameters}
    assert flags <= set(re.findall(r"--[\w-]+", page))
