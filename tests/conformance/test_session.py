"""The tests of the suite as they are collected."""

from conformance.session import Session


def test_titles_say_what_a_broker_must_do(suite: Session) -> None:
    assert [job.id for job in suite.jobs if not job.title.endswith(".")] == []
    assert [job.id for job in suite.jobs if len(job.title) > 120] == []


def test_ids_are_unique(suite: Session) -> None:
    ids = [job.id for job in suite.jobs]
    assert len(set(ids)) == len(ids) > 300
