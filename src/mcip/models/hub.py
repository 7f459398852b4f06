"""Files of the Hugging Face hub: from its cache without a network, else fetched with short time-outs and a limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub import try_to_load_from_cache as look_up
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

from mcip.core.errors import ModelError
from mcip.core.hashes import sha256
from mcip.models.state_dict import MAX_BYTES

_TIMEOUT_S: Final = 5.0
# What large files are known by on the hub.
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check_repo(repo: str) -> None:
    """Check that `repo` is written as the hub writes its repositories, and is no path.

    Raises:
        ModelError: It is not.
    """
    try:
        hf_hub_url(repo, "config.json")
    except HFValidationError as error:
        raise ModelError(f"{repo!r} is not the name of a repository of the Hugging Face hub, as OWNER/NAME.") from error


def fetch_file(repo: str, *files: str) -> Path:
    """The path of the first of `files` that the repository has.

    A file that is in the hub's cache is taken from there without asking the network, also where the repository has a
    newer one. A file that is fetched is checked against the size and the SHA-256 that the hub states.

    Raises:
        ModelError: The hub cannot be reached, has no such repository or none of the files, or the file is too large
            or not what the hub states.
    """
    check_repo(repo)
    for file in files:
        if isinstance(found := look_up(repo, file), str):
            return Path(found)
    for file in files:
        try:
            stated = get_hf_file_metadata(hf_hub_url(repo, file), timeout=_TIMEOUT_S)
            _check_size(repo, file, stated.size)
            path = Path(hf_hub_download(repo, file, etag_timeout=_TIMEOUT_S))
        except EntryNotFoundError:
            continue
        except Exception as error:
            raise _explained(error, repo, file) from error
        if stated.etag and _SHA256.fullmatch(stated.etag) and sha256(path) != stated.etag:
            path.resolve().unlink()
            raise ModelError(f"{file} of {repo} was damaged on its way from the hub and was removed. Run this again.")
        return path
    raise ModelError(f"The repository {repo} of the Hugging Face hub has no {' and no '.join(files)}.")


def fetch_files(repo: str, needed: str, patterns: Sequence[str], suffices: Callable[[Path], bool]) -> Path:
    """The local folder with those files of a repository whose names match.

    Args:
        repo: The repository.
        needed: A file that the folder must have.
        patterns: Of the files, as `fnmatch` takes them.
        suffices: Whether a folder of the cache that has `needed` has all that is needed: it is then not fetched.

    Raises:
        ModelError: As `fetch_file` does.
    """
    check_repo(repo)
    if isinstance(found := look_up(repo, needed), str):
        folder = Path(found).parent
        if suffices(folder):
            return folder
    try:
        stated = HfApi().model_info(repo, files_metadata=True, timeout=_TIMEOUT_S)
        for file in stated.siblings or []:
            if any(fnmatch(file.rfilename, pattern) for pattern in patterns):
                _check_size(repo, file.rfilename, file.size)
        return Path(snapshot_download(repo, allow_patterns=list(patterns), etag_timeout=_TIMEOUT_S))
    except Exception as error:
        raise _explained(error, repo, needed) from error


def _check_size(repo: str, file: str, size: int | None) -> None:
    if size is not None and size > MAX_BYTES:
        raise ModelError(f"{file} of {repo} has {size:,} bytes; more than {MAX_BYTES:,} are not fetched.")


def _explained(error: Exception, repo: str, file: str) -> ModelError:
    if isinstance(error, ModelError):
        return error
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(f"The Hugging Face hub has no repository {repo} that is open to you. Check its name.")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ModelError(
        f"Could not fetch {file} of {repo} from the Hugging Face hub: {reason}. It is fetched once and kept: run "
        f"`hf download {repo}` where there is a network, and copy the cache (HF_HOME) where there is none. With "
        "HF_HUB_OFFLINE=1 the network is not asked at all."
    )
