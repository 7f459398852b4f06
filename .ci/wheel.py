"""Try the wheel in dist/ in an empty environment: it installs, runs the demo, and indexes and searches, offline."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Drawn in the new environment, whose Pillow is the one that the wheel brings.
_PREPARE = """
from pathlib import Path
import mcip
from PIL import Image

assert Path(mcip.__file__).resolve().is_relative_to(Path("venv").resolve()), mcip.__file__
for name in dir(mcip):
    getattr(mcip, name)
Path("images").mkdir()
for name in ("red", "green", "blue", "yellow"):
    Image.new("RGB", (64, 64), name).save(f"images/{name}.png")
"""


def main() -> None:
    """Make the environment in a temporary folder, install the wheel, run a small job, and remove the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--constraint", type=Path, help="file of versions; the newest ones if not given")
    constraint = parser.parse_args().constraint
    wheels = list((ROOT / "dist").glob("mcip-*.whl"))
    if len(wheels) != 1:
        sys.exit(f"dist holds {len(wheels)} wheels, where one is needed: make dist")
    # Windows keeps files open a little longer than the processes that used them.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=os.name == "nt") as name:
        folder = Path(name).resolve()
        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        versions = [] if constraint is None else ["--constraint", str(constraint.resolve())]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", *versions, f"{wheels[0]}[search]"]
        subprocess.run(pip, check=True, env=environment)
        nowhere = "http://127.0.0.1:9"  # nothing answers there
        environment |= {"HF_HUB_OFFLINE": "1", "http_proxy": nowhere, "https_proxy": nowhere}
        environment |= {"MCIP_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub"), "PYTHONUTF8": "1"}
        try_out(folder, scripts, environment)
    print("The wheel works in an empty environment.")


def try_out(folder: Path, scripts: Path, environment: dict[str, str]) -> None:
    """Import the package, and by its command run the demo, and index and search four images.

    Raises:
        CalledProcessError: A command fails.
        SystemExit: A search returns something else than is expected.
    """

    def run(program: str, *arguments: str) -> str:
        command = [str(scripts / program), *arguments]
        done = subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        print(f"$ {program} {' '.join(arguments) if program == 'mcip' else '...'}\n{done.stdout}", flush=True)
        return done.stdout

    run("python", "-c", _PREPARE)
    jobs = ("demo --quick --out demo", "index images --model toyshop --db images.lance")
    for command in ("--version", "models", "doctor --no-network", *jobs):
        run("mcip", *command.split())
    by_text = run("mcip", "search", "images.lance", "something red", "-k", "3", "--output", "paths").splitlines()
    query = str(Path("images", "blue.png"))
    by_image = run("mcip", "search", "images.lance", query, "-k", "1", "--output", "paths").splitlines()
    if len(by_text) != 3 or [Path(path).name for path in by_image] != ["blue.png"]:
        sys.exit(f"The searches returned {by_text} and {by_image}.")


if __name__ == "__main__":
    main()
