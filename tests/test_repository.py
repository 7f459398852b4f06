"""The files around the package: workflows, templates, hooks, citation, and the description of the package."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
YAML_FILES = [
    *sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff",
]  # fmt: skip
PAGES = ["CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_files_are_mappings(path: Path) -> None:
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_only_and_end(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert all("uses" in step or "run" in step for step in job["steps"])


def test_only_publishing_gets_an_identity_and_after_the_build() -> None:
    jobs = read(ROOT / ".github/workflows/release.yml")["jobs"]
    assert {name for name, job in jobs.items() if "permissions" in job} == {"publish"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"


def test_every_supported_python_is_tested() -> None:
    jobs = read(ROOT / ".github/workflows/test.yml")["jobs"]
    pythons = jobs["newest"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    classifiers = [text for text in PROJECT["project"]["classifiers"] if text.startswith(prefix)]
    assert [f"{prefix}{python.removeprefix('3.')}" for python in pythons] == classifiers
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]}"


def test_commands_of_the_workflows_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (sources,) = re.findall(r"^SOURCES := (.+)$", makefile, re.MULTILINE)
    commands = [
        step["run"] for step in read(ROOT / ".github/workflows/check.yml")["jobs"]["check"]["steps"] if "run" in step
    ]
    site = "sphinx-build -b html -q -W --keep-going -D nb_execution_mode=off docs build/docs-check"
    expected = [f"ruff check {sources}", f"ruff format --check {sources}", "mypy", "lint-imports", site]
    assert commands[1:] == expected
    assert all(f"$(BIN)/{command.replace(sources, '$(SOURCES)')}\n" in makefile for command in expected)


def test_hooks_have_the_version_of_ruff_that_the_checks_have() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ruff=={repository['rev'].removeprefix('v')}" in constraints


def test_citation_names_the_journal_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    (journal,) = [work for work in citation["references"] if work["type"] == "article"]
    assert journal["doi"] == "10.1016/j.is.2025.102581"
    assert [author["family-names"] for author in journal["authors"]] == ["Schall", "Barthel", "Hezel", "Moelle"]
    assert "version" not in citation  # it stands in one place


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []
    paths = re.findall(r"`((?:src|tests|benchmarks)/[\w/.]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_description_has_no_relative_images_and_links() -> None:
    settings = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = "".join((ROOT / part["path"]).read_text(encoding="utf-8") for part in settings["fragments"])
    for substitution in settings["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []


def test_the_wheel_is_tried_only_where_there_is_one(tmp_path: Path) -> None:
    script = tmp_path / ".ci/wheel.py"
    script.parent.mkdir()
    script.write_bytes((ROOT / ".ci/wheel.py").read_bytes())
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make dist" in done.stderr
