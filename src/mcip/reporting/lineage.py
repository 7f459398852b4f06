"""Where a model comes from, read from the manifests: its base, that base's license, and each step on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import open_clip

from mcip.core.artefacts import MANIFEST
from mcip.core.files import read_json

UNKNOWN: Final = "unknown"
# Licenses of pretrained weights, by the name and tag of the base; as their publishers state them. The first counts.
_LICENSES: Final = (
    (r"toyshop", "apache-2.0"),
    # Their names hold that of SigLIP, whose license is not theirs.
    (r"nllb.*", UNKNOWN),
    (r".*-clipa.*", "apache-2.0"),
    (r".*/openai", "mit"),
    (r".*siglip.*", "apache-2.0"),
    (r"pe-core.*", "apache-2.0"),
    (r"mobileclip.*|.*/dfn.*", "apple-amlr"),
    (r".*/metaclip.*", "cc-by-nc-4.0"),
    (r".*/(laion|datacomp|commonpool).*", "mit"),
)
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_NO_PARAMETERS: Final = ("method", "interpolated", "base", "exported_from", "weights", "model")
# A chain of manifests longer than this is one that bites its tail.
_LONGEST: Final = 50


@dataclass(frozen=True)
class Step:
    """One step from the base to the model.

    Attributes:
        method: What was done: "gpr-ft", "mcip", "re-a", "interpolate", ...
        parameters: Its parameters as the manifest records them, as text; fingerprints shortened.
    """

    method: str
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from.

    Attributes:
        base: The name of the base, without the path of a local folder.
        steps: What was done to it, the first step first.
    """

    base: str
    steps: tuple[Step, ...]

    @property
    def fingerprints(self) -> bool:
        """Whether the beginnings of some are among the parameters."""
        values = (value for step in self.steps for value in step.parameters.values())
        return any(re.fullmatch(r"[0-9a-f]{12}", value) for value in values)

    @property
    def base_repo(self) -> str | None:
        """The repository of the base on the Hugging Face hub, as OWNER/NAME; None where it is not known."""
        if self.base.startswith("hf-hub:"):
            return self.base.removeprefix("hf-hub:")
        architecture, _, tag = self.base.rpartition("/")
        config = open_clip.get_pretrained_cfg(architecture, tag) if architecture else None
        return (config or {}).get("hf_hub", "").rpartition("/")[0] or None

    @property
    def license(self) -> str:
        """The license of the base by the hub's name for it, or "unknown"."""
        found = [name for pattern, name in _LICENSES if re.fullmatch(pattern, self.base.lower())]
        return found[0] if found else UNKNOWN


def lineage(folder: Path) -> Lineage:
    """Follow the manifests from a saved model back to its base."""
    steps: list[Step] = []
    place, source = folder, str(folder)
    for _ in range(_LONGEST):
        if not (place / MANIFEST).is_file():
            break
        manifest = read_json(place / MANIFEST)
        made_from = manifest.get("made_from") or {}
        # What was only saved or written in another form is no step.
        if "exported_from" not in made_from and made_from:
            steps.append(_step(made_from))
        source = str(made_from.get("interpolated") or manifest.get("source") or place.name)
        place = Path(source)
    return Lineage(Path(source).name if place.is_absolute() or place.exists() else source, tuple(reversed(steps)))


def _step(made_from: Mapping[str, Any]) -> Step:
    method = "interpolate" if "interpolated" in made_from else str(made_from.get("method", "saved"))
    shown = {
        name: value[:12] if isinstance(value, str) and _FINGERPRINT.fullmatch(value) else str(value)
        for name, value in made_from.items()
        if name not in _NO_PARAMETERS and isinstance(value, str | int | float) and "/" not in str(value)
    }
    return Step(method, shown)
