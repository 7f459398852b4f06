"""Runs the commands that a JSON file lists, one after the other, in each process that torchrun starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mcip.cli.main import main

if __name__ == "__main__":
    for command in json.loads(Path(sys.argv[1]).read_text()):
        if code := main(command):
            sys.exit(code)
