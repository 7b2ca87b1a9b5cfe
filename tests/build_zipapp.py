"""Build dist/selectmq.pyz: the broker as one file, which `python3 selectmq.pyz` starts wherever there is a Python.

    python tests/build_zipapp.py [PATH]

The same sources give the same bytes: files in order, all of one date, none compressed (versions of zlib differ).
"""

import io
import sys
import zipapp
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INTERPRETER = "/usr/bin/env python3"
#: The earliest that a zip file can hold.
DATE = (1980, 1, 1, 0, 0, 0)

MAIN = "import sys\n\nfrom selectmq.__main__ import main\n\nsys.exit(main())\n"


def contents() -> Iterator[tuple[str, bytes]]:
    """What is in the archive: name and data."""
    yield "LICENSE", (ROOT / "LICENSE").read_bytes()
    yield "__main__.py", MAIN.encode()
    package = ROOT / "broker"
    for path in sorted(package.rglob("*")):
        if path.suffix == ".py" or path.name == "py.typed":
            yield f"selectmq/{path.relative_to(package).as_posix()}", path.read_bytes()


def build(target: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in contents():
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3  # Unix, also where this runs on Windows
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    packed.seek(0)
    target.parent.mkdir(parents=True, exist_ok=True)
    zipapp.create_archive(packed, target, INTERPRETER)
    target.chmod(0o755)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist" / "selectmq.pyz"
    build(path)
    print(path)
