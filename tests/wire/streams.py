"""Any bytes, in any pieces: streams of packets for the decoder of each version."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from hypothesis import strategies as st

CUTS = st.lists(st.integers(0, 10_000), max_size=12)


class Row(Protocol):
    """Of tests.vectors, or tests.vectors5."""

    @property
    def data(self) -> bytes: ...


@st.composite
def streams(draw: st.DrawFn, rows_of: Sequence[Row]) -> bytes:
    """Packets, most of them right, one behind the other, and sometimes with a byte changed, lost or too much."""
    rows = draw(st.lists(st.sampled_from(rows_of), min_size=1, max_size=6))
    data = bytearray(b"".join(row.data for row in rows))
    for _ in range(draw(st.integers(0, 2))):
        if data:
            at = draw(st.integers(0, len(data) - 1))
            how = draw(st.sampled_from(("change", "lose", "add", "cut")))
            if how == "change":
                data[at] = draw(st.integers(0, 255))
            elif how == "lose":
                del data[at]
            elif how == "add":
                data.insert(at, draw(st.integers(0, 255)))
            else:
                del data[at:]
    return bytes(data)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(places)]
