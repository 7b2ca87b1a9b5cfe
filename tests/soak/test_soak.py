"""The soak for a moment: what can be counted is where it was. Memory and disk take `tox -e soak`."""

from __future__ import annotations

from pathlib import Path

from tests.soak.soak import BOUNDS, MIB, Soak, compare

COUNTED = ("descriptors", "threads", "sessions", "subscriptions", "stored messages", "bugs")


def test_when_all_have_gone_nothing_is_left(tmp_path: Path) -> None:
    run = Soak(tmp_path, seed=2)
    try:
        run.load(0.5)
        before = run.figures()
        run.load(2.0)
        after = run.figures()
    except BaseException:
        run.broker.kill()
        raise
    run.broker.stop()
    assert {name: before[name] for name in COUNTED} == {name: after[name] for name in COUNTED}
    assert (after["sessions"], after["subscriptions"], after["stored messages"], after["bugs"]) == (0, 0, 0, 0)


def test_what_is_over_its_bound_is_told() -> None:
    before = {bound.name: 5 * MIB for bound in BOUNDS}
    table, over = compare(before, before)
    assert (len(table.splitlines()), over) == (1 + len(BOUNDS), [])
    after = before | {"memory": 30 * MIB, "sessions": 5 * MIB + 1, "threads": 4 * MIB}
    table, over = compare(before, after)
    assert over == ["memory grew by 25.0 MiB", "sessions grew by 1"]
    assert table.count("OVER") == 2
