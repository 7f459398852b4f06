"""Push a model to the Hugging Face hub, with a card that says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mcip.core.errors import ConfigError, ModelError
from mcip.core.processes import check_one_process

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mcip.models import Model

_CARD = "README.md"
# What a model folder holds that open_clip and mcip read; its manifest stays here, since it may name local paths.
_LEFT_HERE = ("manifest.json",)


@dataclass(frozen=True)
class Push:
    """What was pushed, or would be.

    Attributes:
        repo: The repository, as OWNER/NAME.
        files: The size of each file in bytes.
        card: The content of README.md.
        url: The address of the commit; None where nothing was sent.
    """

    repo: str
    files: Mapping[str, int]
    card: str = field(repr=False)
    url: str | None = None

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("file", "MB")
        for name, size in self.files.items():
            table.add_row(Text(name), Text(f"{size / 1e6:.2f}"))
        end = f"Pushed: {self.url}" if self.url else f"Nothing was sent. To push this to {self.repo}, add --yes."
        return Group(Text(self.card), table, Text(end))


def push(
    model: Path,
    repo: str,
    *,
    yes: bool = False,
    formats: Literal["open_clip", "all"] = "open_clip",
    results: Sequence[Path] = (),
    tuned_on: str | None = None,
    license: str | None = None,
    private: bool = False,
    endpoint: str | None = None,
) -> Push:
    """Push a model folder to the Hugging Face hub as one commit; without --yes, show what would be pushed.

    The token is that of `hf auth login` or of the environment variable HF_TOKEN.

    Args:
        model: The folder that a command wrote, such as runs/mcip/model.
        repo: The repository, as OWNER/NAME; it is made where it is missing.
        yes: Send it.
        formats: "open_clip": the files that open_clip and mcip load. "all": those of transformers and
            sentence-transformers too, which hold the weights once more.
        results: Results files of `mcip evaluate` to show in the card, as a table and a plot; the first is the baseline.
        tuned_on: What the model was tuned on, in words for the card, such as the name of a data set.
        license: The license by the hub's name for it; that of the base if not given, where it is known.
        private: Make the repository private, if it is made.
        endpoint: The address of the hub; that of the environment variable HF_ENDPOINT if not given.

    Returns:
        The files with their sizes, the card, and the address of the commit.

    Raises:
        ModelError: The folder holds no model that mcip saved, or the hub did not take it.
        ConfigError: `repo` is not a name of a repository, or the results cannot be compared.
        ArtefactError: A results file cannot be read.

    Example:
        >>> import mcip
        >>> pushed = mcip.push("runs/mcip/model", "me/shop-clip")  # doctest: +SKIP
        >>> print(pushed.card)  # doctest: +SKIP
    """
    check_one_process()
    import tempfile

    from mcip.models import load
    from mcip.models.hub import check_repo
    from mcip.models.registry import KIND
    from mcip.reporting.comparison import Comparison
    from mcip.reporting.model_card import PLOT, model_card, results_plot
    from mcip.reporting.results import joined, read_results

    if formats not in ("open_clip", "all"):
        raise ConfigError(f"formats is {formats!r}: it is open_clip or all.")
    check_repo(repo)
    if repo.count("/") != 1:
        raise ConfigError(f"{repo!r} is not the name of a repository: write it as OWNER/NAME.")
    folder = Path(model)
    _check_model(folder, KIND)
    comparison = Comparison.of(joined([read_results(path) for path in results])) if results else None
    loaded = load(folder)
    with tempfile.TemporaryDirectory() as other:
        files = _files(folder, loaded, formats, Path(other) / "transformers")
        card = model_card(_facts(folder, repo, loaded, formats, tuned_on, license), comparison)
        files[_CARD] = card.encode()
        if comparison is not None and (plot := results_plot(comparison)) is not None:
            files[PLOT] = plot
        sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
        url = _send(repo, files, private, endpoint) if yes else None
    return Push(repo, dict(sorted(sizes.items())), card, url)


def _check_model(folder: Path, kind: str) -> None:
    from mcip.core.artefacts import Artefact
    from mcip.core.errors import ArtefactError

    try:
        Artefact.open(folder, kind)
    except ArtefactError as error:
        raise ModelError(
            f"{folder} is not a model that mcip saved ({error}). Push the folder `model` of a run, or what "
            "`mcip export --format open_clip` wrote."
        ) from error


def _files(folder: Path, loaded: Model, formats: str, other: Path) -> dict[str, Path | bytes]:
    """The files by their names in the repository."""
    files: dict[str, Path | bytes] = _of(folder)
    if formats == "all":
        from mcip.models.adapter import refuse_carried
        from mcip.models.hf_export import write_transformers

        refuse_carried(loaded, "a model of transformers")
        files |= _of(write_transformers(loaded, other, sentence=True))
    return files


def _of(folder: Path) -> dict[str, Path | bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if name not in _LEFT_HERE and not path.name.startswith(".")}


def _facts(folder: Path, repo: str, loaded: Model, formats: str, tuned_on: str | None, license: str | None) -> Any:
    from mcip.models.carried import carried
    from mcip.models.hf_towers import family_of
    from mcip.reporting.lineage import lineage
    from mcip.reporting.model_card import CardFacts

    try:
        family = family_of(loaded.model_cfg)
    except ModelError:
        family = None
    origin = lineage(folder)
    return CardFacts(
        repo, origin, license or origin.license, tuned_on or "", loaded.embed_dim, loaded.image_size, formats == "all",
        family is not None, carried(loaded.clip) is not None, family == "siglip",
    )  # fmt: skip


def _send(repo: str, files: Mapping[str, Path | bytes], private: bool, endpoint: str | None) -> str:
    """Make the repository where it is missing, and commit all files at once; the address of the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, file) for name, file in sorted(files.items())]
        commit = api.create_commit(repo, operations, commit_message="Add the model and its card")
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(
            f"The hub did not take {repo}: {reason}. Log in by `hf auth login` with a token that may write there, and "
            "run this again."
        ) from error
    return str(commit.commit_url)
