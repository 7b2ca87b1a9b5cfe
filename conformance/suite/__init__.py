"""The tests that put a broker on trial: one file per section of the specification. How: conformance/__init__.py."""

from pathlib import Path

#: Where they are.
DIRECTORY = Path(__file__).parent
