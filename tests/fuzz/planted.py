"""A target with a fault in it, to prove that a fault is found, saved, and can be played again.

Owns: the fault.
"""


def seeds() -> list[bytes]:
    return [b"begins well"]


def check(data: bytes) -> None:
    """Raise if the input holds a byte that the seed has not."""
    assert b"X" not in data, "the planted fault"
