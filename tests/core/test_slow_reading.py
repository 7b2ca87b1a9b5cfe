"""Reading a dict that changes meanwhile: each key that stays comes once, none comes twice, nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.slow_reading import CHUNK, PARTS, SlowReading

SIZE = 40


#: What happens: a reader takes some keys, a key is set, a key is removed, a reader begins, a reader gives up.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 5), st.integers(1, 9)),
        st.tuples(st.just("set"), st.integers(0, SIZE * 2), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, SIZE * 2), st.just(0)),
        st.tuples(st.just("begin"), st.just(0), st.just(0)),
        st.tuples(st.just("give up"), st.integers(0, 5), st.just(0)),
    ),
    max_size=80,
)


class Reader:
    def __init__(self, keys: Iterator[int], there: set[int]) -> None:
        self.keys = keys
        self.stayed = there  #: since it began
        self.came: list[int] = []

    def take(self, count: int) -> None:
        self.came += islice(self.keys, count)


@settings(deadline=None, max_examples=300)
@given(EVENTS)
def test_each_key_that_stays_comes_once(events: list[tuple[str, int, int]]) -> None:
    reading = SlowReading(chunk=4)
    what: dict[int, object] = dict.fromkeys(range(SIZE), "value")
    emptied: list[bool] = []
    readers: list[Reader] = []

    def there() -> set[int]:
        return {key for key, value in what.items() if value is not None}

    for event, number, count in [("begin", 0, 0), *events]:
        if event == "begin" and len(readers) < 6:
            readers.append(Reader(reading.keys(what, lambda: emptied.append(True)), there()))
        elif event == "read" and number < len(readers):
            readers[number].take(count)
        elif event == "give up" and number < len(readers):
            readers.pop(number).keys.close()  # type: ignore[attr-defined]  # it is a generator
        elif event == "set":
            what[number] = "again"
        elif event == "remove" and what.get(number) is not None:
            reading.remove(what, number)
            for reader in readers:
                reader.stayed.discard(number)
    for reader in readers:
        reader.take(SIZE * 4)
        assert (sorted(reader.came), reader.stayed - set(reader.came)) == (sorted(set(reader.came)), set())
    assert (None in what.values(), reading._reads) == (False, {})


def test_a_dict_that_is_empty_at_the_end_is_told() -> None:
    reading = SlowReading(chunk=4)
    what: dict[int, object] = dict.fromkeys(range(SIZE), "value")
    emptied: list[bool] = []
    keys = reading.keys(what, lambda: emptied.append(True))
    assert next(keys) == 0
    for key in range(SIZE):
        reading.remove(what, key)
    assert list(keys)[-1] in range(SIZE)
    assert (what, emptied) == ({}, [True])


def test_a_thousand_readers_hold_a_handful_of_keys_each() -> None:
    reading = SlowReading()
    what: dict[int, object] = dict.fromkeys(range(90_000), "value")
    readers = [reading.keys(what, lambda: None) for _ in range(1_000)]
    assert [next(keys) for keys in readers] == [0] * 1_000
    held = [len(keys.gi_frame.f_locals["chunk"]) for keys in readers]  # type: ignore[attr-defined]  # a generator
    assert max(held) <= max(CHUNK, 90_000 // PARTS)
    assert list(readers[0]) == list(range(1, 90_000))
