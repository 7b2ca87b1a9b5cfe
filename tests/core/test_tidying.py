"""Disk space is given back while there is nothing else to do."""

from __future__ import annotations

from broker.core.ports import SessionRecord, StoreError
from broker.core.tidying import LOOK, PAUSE, RETRY, Tidying
from broker.storage.memory import MemoryStore
from tests.core.harness import World


class Untidy(MemoryStore):
    """Has some steps to do, and fails at those that are named."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.done = 0
        self.broken = False

    def tidy(self) -> bool:
        if self.broken:
            raise StoreError("the disk is full")
        self.done += 1
        self.steps = max(0, self.steps - 1)
        return self.steps > 0


def bench(steps: int = 0) -> tuple[Untidy, World]:
    store = Untidy()
    store.steps = steps
    world = World(store)
    Tidying(store, world.journal, world.lane, world.timers, world.log)
    return store, world


def commit(world: World) -> None:
    world.journal.save_session(SessionRecord(1, "c", None, None, None))
    world.settle()


def test_it_is_done_in_steps_until_there_is_no_more() -> None:
    store, world = bench(steps=5)
    world.advance(LOOK - 0.1)
    assert store.done == 0
    world.advance(0.2 + 5 * PAUSE)
    assert store.done == 5


def test_it_is_looked_at_again_only_when_something_was_stored() -> None:
    store, world = bench()
    world.advance(10 * LOOK)
    assert store.done == 1
    commit(world)
    world.advance(10 * LOOK)
    assert store.done == 2


def test_commits_go_first() -> None:
    store, world = bench(steps=3)
    commit(world)
    world.lane.held = True
    world.journal.save_session(SessionRecord(2, "d", None, None, None))
    world.advance(LOOK * 2)
    assert (store.done, len(world.lane.jobs)) == (0, 1)
    world.lane.held = False
    world.settle().advance(PAUSE * 5)
    assert store.done == 3


def test_a_failure_is_told_once_and_tried_again_later() -> None:
    store, world = bench(steps=3)
    store.broken = True
    world.advance(LOOK + 3 * RETRY)
    event = "the store could not give back disk space"
    assert world.log.fields(event) == [{"reason": "the disk is full"}]
    store.broken = False
    world.advance(RETRY + 1)
    assert store.done == 3
