"""Pages made when the site is built: one for each command, from the signature and docstring of its stage.

Links to notebooks outside the site, which are files there and no pages, become downloads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from mcip.cli import main as cli

FOLDER = Path(__file__).parent.parent / "reference" / "commands"


def page(command: str) -> str:
    """The page of a command, in Markdown: usage, purpose, and each flag with its default."""
    text: str = cli._app(command)[command].generate_docs()
    # The usage line starts with the program that runs, which is Sphinx; arguments follow in capitals or brackets.
    text = re.sub(r"(?<=^```console\n).*?(?=( [A-Z\[].*)?$)", f"mcip {command}", text, count=1, flags=re.MULTILINE)
    lines = [line.rstrip() for line in text.splitlines()]
    lines[0] = f"# mcip {command}"
    return "\n".join(lines) + "\n"


def write_pages(app: Sphinx) -> None:
    """Write the page of each command where it has changed, and remove those of commands that are gone."""
    FOLDER.mkdir(exist_ok=True)
    pages = {FOLDER / f"{command}.md": page(command) for command in cli.COMMANDS}
    for path in set(FOLDER.glob("*.md")) - pages.keys():
        path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def link_files(app: Sphinx, name: str, content: list[str]) -> None:
    """Make links to notebooks of the repository downloads."""
    content[0] = re.sub(r"\]\((\.\./[^)]+\.ipynb)\)", r"](<path:\1>)", content[0])


def keep_at(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep recall@10 in docstrings from being read as an address of e-mail."""
    lines[:] = [line if "`" in line or ">>>" in line else re.sub(r"(?<=\w)@(?=\w)", r"\\@", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("source-read", link_files)
    app.connect("autodoc-process-docstring", keep_at)
    return {"parallel_read_safe": True}
