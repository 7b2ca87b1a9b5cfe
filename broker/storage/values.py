"""Values in rows: that they have the type that this broker wrote, and lists of numbers.

Owns: that check, and the layout of a list. Must not know: tables.
"""

import sys
from array import array
from collections.abc import Iterable
from typing import Any

from ..wire.codes import ProtocolError
from ..wire.properties import Published, published
from . import soundness


class Damage(Exception):
    """The file holds what this broker never wrote, and SQLite cannot know. str() says what."""


def typed(row: tuple[Any, ...], *kinds: Any) -> tuple[Any, ...]:
    """The row, if its values have these types: SQLite does not insist on them. Raises Damage."""
    for value, kind in zip(row, kinds, strict=True):
        if not isinstance(value, kind):
            raise Damage("a value has a wrong type")
    return row


def sound_properties(kept: bytes) -> bytes:
    """What a message keeps of its properties, if it is that: else each client that gets it would end its connection."""
    found: Published | None
    try:
        found = published(kept)
    except ProtocolError:
        found = None
    if found is None or found.kept != kept:
        raise Damage("the properties of a message are not valid")
    return kept


def pack_numbers(kind: str, numbers: Iterable[float]) -> bytes:
    """A list of numbers, little-endian, so that the file can move to another machine."""
    packed = array(kind, numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_numbers(kind: str, data: bytes) -> "array[Any]":
    try:
        numbers = array(kind, data)
    except (TypeError, ValueError):
        raise Damage("a list of numbers is not one") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def within(kind: str, data: bytes, most: float = soundness.MOST) -> "array[Any]":
    """The list of numbers, if each has a size that this broker writes."""
    numbers = unpack_numbers(kind, data)
    if not all(-most <= number <= most for number in numbers):
        raise Damage("a list has a number out of range")
    return numbers
