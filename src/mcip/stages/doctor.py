"""Check the installation: versions, devices, extras, caches, and whether models can be fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from mcip.stages.diagnosis import Diagnosis

Output: TypeAlias = Literal["table", "json"]


def doctor(*, network: bool = True, timeout: float = 3.0, output: Output = "table") -> Diagnosis | str:
    """Check the installation: versions, devices, extras, caches, and whether models can be fetched.

    Nothing is installed, fetched or changed. Each thing that is missing comes with a remedy.

    Args:
        network: Ask the Hugging Face hub and the site of the released models whether they can be reached.
        timeout: Seconds to wait for each of them.
        output: Tables, or JSON for programs.

    Returns:
        The findings, shown as tables; JSON as a text where `output` says so.

    Raises:
        ConfigError: A parameter is out of range.

    Example:
        >>> from mcip.stages.doctor import doctor
        >>> [finding.name for finding in doctor(network=False) if finding.group == "Devices"]
        ['CUDA', 'MPS', 'CPU cores', 'memory']
    """
    from mcip.core.errors import ConfigError
    from mcip.core.parameters import check_choices
    from mcip.stages.diagnosis import Diagnosis
    from mcip.stages.doctor_checks import run_checks

    check_choices(doctor, locals())
    if not timeout > 0:
        raise ConfigError(f"timeout is {timeout}: it must be more than 0 seconds.")
    diagnosis = Diagnosis(tuple(run_checks(network, timeout)))
    return diagnosis.to_json() if output == "json" else diagnosis
