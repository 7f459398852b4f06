"""Let programs that speak the Model Context Protocol search an index."""

from __future__ import annotations

from mcip.core.choices import Backend
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices
from mcip.stages.inputs import IndexInput, as_index


def mcp(
    db: IndexInput,
    *,
    paths: bool = False,
    model: str | None = None,
    device: str = "auto",
    backend: Backend = "auto",
) -> None:
    """Serve an index to a program that speaks the Model Context Protocol, over standard input and output.

    The program starts this command by itself, and gets the tools `search`, `similar` and `show`. They only read, and
    newer versions of the index are searched as soon as there are any.

    Args:
        db: What `mcip index` made.
        paths: Tell the program where the images lie, and let it filter by that. Ids are told in any case; those of an
            indexed folder are paths relative to it.
        model: The index's model, if it is not where the index says.
        device: Of the model: "auto", "cpu", "cuda", "cuda:1", ...
        backend: What embeds queries; see `mcip search`.

    Raises:
        ArtefactError: There is no index.
        ConfigError: The extra `mcip[mcp]` is not installed.
        ModelError: The model is not the index's.

    Example:
        >>> mcip.mcp("photos.lance")  # doctest: +SKIP
    """
    check_choices(mcp, locals())
    try:
        from mcip.server.mcp_tools import mcp_server
    except ImportError as error:
        raise ConfigError(
            f"This needs packages that are not installed ({error}): pip install 'mcip[mcp,search]'."
        ) from error

    mcp_server(as_index(db, model, device, backend), paths).run("stdio")
