"""What the README and the pages tell their reader to do works as it stands there: walkthrough.py does it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker_process import ROOT
from tests.end_to_end.walkthrough import Block, blocks, fits
from tests.test_documents import PAGES, every_page

#: Blocks that this machine cannot be asked to run.
MOST_NOT_RUN = 8


@every_page
def test_a_reader_can_do_what_the_page_says(page: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.walkthrough", str(page)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


def test_few_blocks_are_not_run() -> None:
    assert sum(block.why_not is not None for page in PAGES for block in blocks(page)) <= MOST_NOT_RUN


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("```sh\nfalse\n```", "page.md:1: ended with 1:\n"),
        ("```sh\nfalse\ntrue\n```", "page.md:1: ended with 1:\n"),
        ("```sh\necho one\n```\n\n```text\ntwo\n```", "page.md:5: shows\ntwo\n\nbut the block above it prints\none\n"),
        ("```python\nprint(1 / 0)\n```", "page.md:1: ended with 1:\nTraceback"),
        ("```toml\nport = 70000\n```", "port"),
        ("```toml\nprot = 1\n```", "prot"),
        ("```c\n```", "page.md:1: ```c is none of sh, python,"),
        ("<!-- test: sings -->\n```sh\ntrue\n```", "page.md:2: no such directive: sings"),
        ("<!-- test: keeps running -->\n```sh\ntrue\n```", "page.md:2: 'started' did not come, but:"),
    ],
)
def test_what_is_wrong_with_a_page_is_told(page: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page)
    run = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.walkthrough", str(tmp_path / "page.md")],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (run.returncode, fault in run.stderr) == (1, True), run.stderr


def test_a_walk_goes_from_block_to_block(tmp_path: Path) -> None:
    """Files stay, what keeps running is there for the next, and what is typed arrives."""
    (tmp_path / "page.md").write_text("""
```python
# serve.py
import socket
server = socket.create_server(("127.0.0.1", 1883))
print("started", flush=True)
while True:
    server.accept()[0].sendall(b"hello")
```

<!-- test: keeps running -->
```sh
python3 serve.py
```

```python
import socket
print(socket.create_connection(("127.0.0.1", 1883)).recv(5))
```

It prints:

```text
b'h...o'
```

<!-- test: types secret secret -->
```sh
python3 -c 'import getpass; print(getpass.getpass("One: ") == getpass.getpass("Two: "))'
```

```text
One:
Two:
True
```
""")
    run = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.walkthrough", str(tmp_path / "page.md")],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("shown", "printed", "fit"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a", "a \n", True),
        ("a", "a\nb", False),
        ("...", "a\nb", True),
        ("a ... d", "a b c d", True),
        ("a...\n", "b a", False),
        ("a.c", "abc", False),
    ],
)
def test_what_is_shown_is_compared_with_what_is_printed(shown: str, printed: str, fit: bool) -> None:
    assert fits(shown, printed) is fit


def test_blocks_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```sh\none\n```\n\n<!-- test: not run: no systemd -->\n\n```toml\n# a.toml\nb = 1\n```\n")
    assert blocks(page) == [
        Block("page.md:3", "sh", "one\n"),
        Block("page.md:9", "toml", "# a.toml\nb = 1\n", "not run: no systemd"),
    ]
    assert [(block.file, block.why_not) for block in blocks(page)] == [(None, None), ("a.toml", "no systemd")]
