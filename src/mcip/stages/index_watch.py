"""Keep an index fresh: update it whenever its folders change."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mcip.core.errors import ConfigError, McipError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mcip.retrieval.index import Index
    from mcip.stages.index_update import Update
    from mcip.stages.inputs import DataInput

# Milliseconds without another change until an update begins, and those after which it begins anyway.
_QUIET: Final = 1_000
_PATIENCE: Final = 15_000
# Milliseconds between two looks at the clock.
_TICK: Final = 2_000
# Seconds until what failed is tried again, and those between two updates where no change is reported: network drives
# report none, nor does a folder that another one was mounted on.
_RETRY: Final = 60.0
_ANYWAY: Final = 3600.0


def check_watched(sources: Sequence[DataInput]) -> None:
    """Check before the first update that sources can be watched.

    Raises:
        ConfigError: One is on object storage or in memory, or the package that watches is not installed.
    """
    from mcip.core.optional import module
    from mcip.retrieval.location import is_remote

    module("watchfiles")
    for source in sources:
        if not isinstance(source, str | os.PathLike) or is_remote(os.fspath(source)):
            raise ConfigError(f"{source} is not on this machine's disks: it cannot be watched. Index it by a timer.")


def watch_index(index: Index, update: Update) -> None:
    """Update an index whenever its sources change, until SIGINT or SIGTERM; its lock is held during updates only.

    What goes wrong in one update is shown, and the next one goes on.

    Args:
        index: The opened index: it follows the table.
        update: What to do each time.
    """
    from mcip.retrieval.location import local_path
    from mcip.stages import index_update

    locations = [root.location for root in index.engine.table.identity.roots]
    check_watched(locations)
    index_update.note(f"Watching {', '.join(locations)}: stop with Ctrl-C.")
    try:
        with _ended_by_sigterm():
            due, failure = True, ""
            last = time.monotonic()
            for changed in _changes([local_path(location) for location in locations], _ignored(index)):
                waited = time.monotonic() - last
                # The first one finds what has changed since the update before the watch.
                if not (due or changed or waited > (_RETRY if failure else _ANYWAY)):
                    continue
                due, last = False, time.monotonic()
                error = _updated(index, update)
                if error and error != failure:
                    index_update.note(f"The index could not be updated: {error}")
                failure = error
    except KeyboardInterrupt:
        index_update.note("Stopped watching; the index is whole.")


def _updated(index: Index, update: Update) -> str:
    """Update an index and open its newest version; returns what went wrong, if something did."""
    try:
        update.run()
        index.refresh()
    except (McipError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _changes(paths: Sequence[Path], counts: Callable[[Any, str], bool]) -> Iterator[bool]:
    """Whether files have changed: soon after they have, and otherwise now and then."""
    from watchfiles import watch

    for changes in watch(
        *paths, watch_filter=counts, debounce=_PATIENCE, step=_QUIET, rust_timeout=_TICK, yield_on_timeout=True,
        ignore_permission_denied=True,
    ):  # fmt: skip
        yield bool(changes)


def _ignored(index: Index) -> Callable[[Any, str], bool]:
    """Whether a changed path counts: not that of the index itself, nor a hidden one."""
    from mcip.data.walk import is_hidden

    own = (index.uri, f"{index.uri}.search", str(index.folder))

    def counts(_: Any, path: str) -> bool:
        return not (
            is_hidden(Path(path).name) or any(path == place or path.startswith(place + os.sep) for place in own)
        )

    return counts


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM ends it as SIGINT does: by KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may handle signals.
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
