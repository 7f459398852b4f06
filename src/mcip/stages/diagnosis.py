"""What `mcip doctor` finds, shown as tables or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from rich.console import Group

# "optional": not there, and only some commands need it. "missing": something does not work.
Status: TypeAlias = Literal["ok", "optional", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        group: What it belongs to, such as "Versions".
        name: What was checked.
        value: What was found.
        status: Whether it works.
        remedy: What to do about it; empty where nothing has to be done.
    """

    group: str
    name: str
    value: str
    status: Status = "ok"
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings: shown as tables, or as JSON."""

    findings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Finding]:
        """The findings one by one."""
        return iter(self.findings)

    @property
    def missing(self) -> tuple[Finding, ...]:
        """What does not work."""
        return tuple(finding for finding in self.findings if finding.status == "missing")

    def to_json(self) -> str:
        """The findings as a JSON list of objects, with the attributes of `Finding` as keys."""
        return json.dumps([asdict(finding) for finding in self.findings], indent=2, ensure_ascii=False)

    def __rich__(self) -> Group:
        """One block of lines per group, and a last line that says whether something is missing."""
        from rich.console import Group
        from rich.text import Text

        marks = {"ok": ("ok", "green"), "optional": ("-", ""), "missing": ("missing", "bold red")}
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines: list[Text] = []
        for group in dict.fromkeys(finding.group for finding in self.findings):
            lines.append(Text(group, "bold"))
            for finding in self.findings:
                if finding.group == group:
                    mark, style = marks[finding.status]
                    lines.append(Text.assemble((f"  {mark:8}", style), f"{finding.name:{width}}  {finding.value}"))
                    if finding.remedy:
                        lines.append(Text(f"{'':{width + 12}}{finding.remedy}"))
            lines.append(Text())
        names = ", ".join(finding.name for finding in self.missing)
        lines.append(Text(f"{len(self.missing)} missing: {names}." if names else "Nothing is missing."))
        return Group(*lines)
