"""The fuzzers for a moment, so that they do not rot; and that they find, save and play again what is wrong.

The long run is `tox -e fuzz`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from broker.core.session import Session
from broker.core.sessions import Sessions
from broker.core.subscriptions import Subscriptions
from broker.wire import decoder5, properties
from broker.wire.codes import ProtocolError
from broker.wire.decoder import Decoder
from broker.wire.properties import Published
from tests.broker_process import ROOT, environment
from tests.fuzz import decoding, dialogue, in_process
from tests.fuzz.mutation import mutated


def some(check: Callable[[bytes], None], seeds: list[bytes], count: int) -> None:
    """All seeds as they are, and so many that are mutated: always the same."""
    random = Random(1)
    for data in seeds + [mutated(random, seeds) for _ in range(count)]:
        check(data)


def test_some_bytes_for_the_decoder() -> None:
    some(decoding.check, decoding.seeds(), 5_000)


# It collects garbage, and must not be blamed for what another test that failed left open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_some_dialogues_in_process() -> None:
    some(in_process.check, in_process.seeds(), 500)


def test_seeds_do_all_that_dialogues_can() -> None:
    done = {step.act for data in dialogue.seeds() for step in dialogue.steps(data)}
    unspoken = set(dialogue.ACTS) - {
        "publish", "subscribe", "unsubscribe", "acknowledge", "connect", "ping", "disconnect", "raw", "bytes", "again",
        "mutate", "authenticate",
    }  # fmt: skip
    assert unspoken | {"send"} == done


def test_a_decoder_that_forgets_a_byte_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Decoder.feed

    def forgetful(self: Decoder, data: bytes) -> None:
        feed(self, data[1:] if self.buffered and len(data) > 1 else data)

    monkeypatch.setattr(Decoder, "feed", forgetful)
    with pytest.raises(AssertionError, match="cut at"):
        some(decoding.check, decoding.seeds(), 1_000)


def test_a_reader_of_properties_that_loses_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(section: bytes) -> Published:
        told = properties._parse_publish(section)
        return told._replace(kept=told.kept[: -len(told.kept) // 2])

    monkeypatch.setattr(decoder5, "published", careless)
    with pytest.raises((AssertionError, ProtocolError)):
        some(decoding.check, decoding.seeds(), 1_000)


def test_a_writer_of_properties_that_forgets_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = properties.encode
    monkeypatch.setattr(properties, "encode", lambda values: encode(dict(list(values.items())[1:])))
    with pytest.raises(AssertionError):
        some(decoding.check, decoding.seeds(), 1_000)


def test_an_exception_in_the_core_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Subscriptions, *arguments: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(Subscriptions, "unsubscribe", broken)
    with pytest.raises(AssertionError, match="planted"):
        some(in_process.check, in_process.seeds(), 0)


def test_a_session_that_is_not_ended_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    discard = Sessions.discard

    def careless(self: Sessions, session: Session) -> None:
        if not session.subscriptions:
            discard(self, session)

    monkeypatch.setattr(Sessions, "discard", careless)
    with pytest.raises(AssertionError, match="a session that should have ended with its connection"):
        some(in_process.check, in_process.seeds(), 0)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        capture_output=True, text=True, cwd=ROOT, timeout=120, env=environment(environ),
    )  # fmt: skip


def test_each_target_runs_to_the_end_of_its_budget(tmp_path: Path) -> None:
    done = run(
        SELECTMQ_FUZZ_INPUTS="1000", SELECTMQ_FUZZ_SECONDS="1", SELECTMQ_FUZZ_SOCKETS="20", SELECTMQ_FUZZ_PROCESSES="1",
        SELECTMQ_FUZZ_FINDINGS=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decoder: 1000 inputs" in done.stdout
    assert "dialogues: " in done.stdout
    assert "sockets: 20 inputs" in done.stdout


def test_a_finding_is_saved_and_can_be_played_again(tmp_path: Path) -> None:
    done = run("planted", SELECTMQ_FUZZ_PROCESSES="1", SELECTMQ_FUZZ_FINDINGS=str(tmp_path))
    [saved] = tmp_path.iterdir()
    assert (done.returncode, f"again: python -m tests.fuzz replay planted {saved}" in done.stdout) == (1, True), done
    again = run("replay", "planted", str(saved))
    assert (again.returncode, "the planted fault" in again.stderr) == (1, True)
    saved.write_bytes(b"harmless")
    assert run("replay", "planted", str(saved)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "environ", "why"),
    [
        (["decoders"], {}, "no target 'decoders': there are decoder, dialogues, sockets, planted"),
        (["replay", "decoder"], {}, "replay wants a target (decoder, dialogues, sockets, planted) and a file"),
        ([], {"SELECTMQ_FUZZ_INPUTS": "1e6"}, "SELECTMQ_FUZZ_INPUTS is '1e6': it must be a whole number, such as"),
    ],
)
def test_what_cannot_run_says_why(arguments: list[str], environ: dict[str, str], why: str) -> None:
    done = run(*arguments, **environ)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
