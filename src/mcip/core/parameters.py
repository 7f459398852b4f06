"""A stage's parameters as its manifest records them: all of them, but those that do not change the result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_origin

from mcip.core.choices import check_choice

# They say where a result goes, or where and how fast it is computed. Manifests leave them out, and the command's help
# lists them by themselves.
COMPUTING = frozenset(
    {
        "cache_gb", "checkpoint_every", "chunk", "device", "embed_batch_size", "export_csv", "export_jsonl",
        "grad_checkpointing", "image_block", "max_loss_ratio", "max_unreadable", "out", "parallel", "report_to",
        "shard_centers_from", "workers",
    }
)  # fmt: skip


def recorded(
    stage: Callable[..., Any], given: Mapping[str, Any], leave_out: tuple[str, ...] = (), **resolved: Any
) -> dict[str, Any]:
    """The parameters of a stage that change its result.

    Args:
        stage: The stage: its signature says which parameters there are.
        given: Their values, such as `locals()`; what is no parameter is passed over.
        leave_out: Parameters that do not change this stage's result, beside `COMPUTING`.
        resolved: What stands in the place of a parameter: the fingerprint of an input instead of its name, for
            instance.

    Raises:
        TypeError: `leave_out` or `resolved` names something that is no parameter.

    Example:
        >>> def blur(data: str, out: str, radius: int = 3) -> None: ...
        >>> recorded(blur, {"data": "a.csv", "out": "b", "radius": 3}, data="5f1c")
        {'data': '5f1c', 'radius': 3}
    """
    names = inspect.signature(stage).parameters
    unknown = sorted({*leave_out, *resolved} - names.keys())
    if unknown:
        raise TypeError(f"{stage.__name__} has no parameter {unknown[0]!r}.")
    kept = [name for name in names if name not in COMPUTING and name not in leave_out]
    return {name: resolved[name] if name in resolved else given[name] for name in kept}


def check_choices(stage: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse parameters that are none of the choices which the stage's signature names.

    Args:
        stage: The stage, in whose module the choices have the names that annotations give them.
        given: Values by name, such as `locals()`; None is not checked.

    Raises:
        ConfigError: As it says.
    """
    for name, parameter in inspect.signature(stage).parameters.items():
        named = inspect.unwrap(stage).__globals__.get(str(parameter.annotation).removesuffix(" | None"))
        if get_origin(named) is Literal and given.get(name) is not None:
            check_choice(name, given[name], named)


def settings_of(kind: type[Any], given: Mapping[str, Any], **others: Any) -> Any:
    """Make a dataclass whose fields are named like parameters of a stage.

    Args:
        kind: The dataclass.
        given: Values by name, such as `locals()`; what is no field is passed over.
        others: Fields that no parameter gives.
    """
    fields = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in given.items() if name in fields} | others)
