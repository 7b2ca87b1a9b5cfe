"""Installs the clients that cannot come with the `test` extra: MQTT.js (from npm), and gmqtt, whose package brings a
top-level `tests`, which would hide ours.

    python tests/install_clients.py

They go into a directory of this Python environment, which lives as long as that does; nothing happens where they are
there. Where they cannot be installed, it says why, and fails. Owns: that directory, and which versions are in it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

DRIVERS = Path(__file__).parent / "end_to_end" / "drivers"

DIRECTORY = Path(sys.prefix) / "selectmq-test-clients"
NODE_MODULES = DIRECTORY / "node_modules"  #: for NODE_PATH
PYTHON = DIRECTORY / "python"  #: for PYTHONPATH, of a process that needs nothing of ours

#: npm's are in drivers/package-lock.json, with the hash of each.
GMQTT = "gmqtt==0.8.0"

#: What is installed; written last.
STAMP = DIRECTORY / "installed.txt"


def wanted() -> str:
    """What the stamp says if all is there."""
    return GMQTT + "\n" + (DRIVERS / "package-lock.json").read_text()


def require() -> None:
    """For a test that needs them."""
    there = STAMP.exists() and STAMP.read_text() == wanted()
    assert there, f"MQTT.js or gmqtt is missing or outdated: run {sys.executable} tests/install_clients.py"


def main() -> int:
    if STAMP.exists() and STAMP.read_text() == wanted():
        return 0
    npm = shutil.which("npm")
    if npm is None:
        print("tests need npm: install it (Debian: sudo apt-get install nodejs npm)", file=sys.stderr)
        return 1
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(DRIVERS / name, DIRECTORY)
    # Their install scripts are not run: none of these packages needs one.
    for command in (
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PYTHON), GMQTT],
    ):
        done = subprocess.run(command, cwd=DIRECTORY, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            print(f"{done.stdout}{done.stderr}\n{' '.join(command)}: failed, see above", file=sys.stderr)
            return 1
    STAMP.write_text(wanted())
    return 0


if __name__ == "__main__":
    sys.exit(main())
