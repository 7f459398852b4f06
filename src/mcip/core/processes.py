"""What starts one run in several processes is refused: each of them would do the whole work and write its result."""

from __future__ import annotations

import os

from mcip.core.errors import ConfigError

# How torchrun, accelerate launch and other launchers tell a process how many there are.
_WORLD_SIZE = "WORLD_SIZE"


def check_one_process() -> None:
    """Refuse to write anything where this is one of several processes of one run.

    Raises:
        ConfigError: It is.
    """
    world = os.environ.get(_WORLD_SIZE, "1").strip()
    if world.isdecimal() and int(world) > 1:
        raise ConfigError(
            f"This is one of {world} processes that were started together ({_WORLD_SIZE}), and each would do the whole "
            "work: start the command once, without torchrun or accelerate launch."
        )
