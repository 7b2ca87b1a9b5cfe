"""One client's authentication by SCRAM through a listener: the steps, who may come in, and that nobody learns who is
known."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.auth import dialogue, scram
from broker.auth.checks import Checks
from broker.auth.gatekeeper import Gatekeeper, Policy
from broker.auth.passwords import Passwords
from broker.core.ports import Challenge, Failed, Outcome, Proved
from broker.wire.codes import ReturnCode
from tests.password_lines import pbkdf2_line, scram_line, sha512_line
from tests.scram_client import ScramClient

PEER = "192.0.2.1:1000"
SHA_256, SHA_512 = "SCRAM-SHA-256", "SCRAM-SHA-512"
USERS = (
    scram_line("ann", b"secret", iterations=5),
    scram_line("eve", b"secret", iterations=5, salt=b"sixteen bytes..."),
    scram_line("big", b"secret", "512", iterations=4),
    pbkdf2_line("bob", b"secret"),
    sha512_line("old", b"secret"),
)

Job = tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]


class Site:
    """A listener whose workers work when the test says so, and whose pauses take no time."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, memory: int = 1 << 20) -> None:
        self.directory = directory
        self.jobs: list[Job] = []
        self.pauses: list[float] = []
        self.checks = Checks(lambda job, done: self.jobs.append((job, done)), 4, lambda later: later(), memory)
        self.gatekeeper = Gatekeeper(Policy(self.passwords(*USERS)), self.checks)
        monkeypatch.setattr("time.sleep", self.pauses.append)

    def passwords(self, *lines: str) -> Passwords:
        path = self.directory / "users"
        path.write_text("".join(lines))
        return Passwords.read(str(path))

    def work(self) -> None:
        while self.jobs:
            job, done = self.jobs.pop(0)
            done(job(), None)

    def log_in(
        self,
        client: ScramClient,
        method: str = SHA_256,
        client_id: str | None = "c",
        username: str | None = None,
        change: Callable[[bytes], bytes] = lambda final: final,
    ) -> Outcome:
        """All steps."""
        steps = self.gatekeeper.begin(method, client_id, username, PEER)
        assert steps is not None
        late: list[Outcome] = []
        outcome = steps.step(client.first(), late.append)
        if isinstance(outcome, Challenge):
            outcome = steps.step(change(client.final(outcome.data)), late.append)
            self.work()
        if isinstance(outcome, Challenge | Proved | Failed):
            late.append(outcome)
        (found,) = late
        if isinstance(found, Proved):
            client.check(found.data)
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def ann(password: str = "secret") -> ScramClient:
    return ScramClient(SHA_256, "ann", password)


def test_who_knows_the_password_is_in(site: Site) -> None:
    outcome = site.log_in(ann())
    assert (type(outcome), outcome[0], site.pauses) == (Proved, "ann", [])
    outcome = site.log_in(ScramClient(SHA_512, "big", "secret"), SHA_512)
    assert (type(outcome), outcome[0]) == (Proved, "big")


@pytest.mark.parametrize(
    ("name", "method", "why"),
    [
        ("ann", SHA_256, "wrong password"),
        ("nobody", SHA_256, "there is no such user in the password file"),
        ("bob", SHA_256, "the user has no password for SCRAM-SHA-256 (passwd --scram sha-256)"),
        ("old", SHA_512, "the user has no password for SCRAM-SHA-512 (passwd --scram sha-512)"),
        ("big", SHA_256, "the user has no password for SCRAM-SHA-256 (passwd --scram sha-256)"),
    ],
)
def test_the_log_says_what_is_wrong(name: str, method: str, why: str, site: Site) -> None:
    expected = Failed(ReturnCode.BAD_USER_NAME_OR_PASSWORD, why, name)
    assert site.log_in(ScramClient(method, name, "wrong"), method) == expected


#: All equally long, so that only what is different about the users can be seen.
NAMES = ("ann", "eve", "bob", "old", "big", "nil")


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is computed from now on, and about how many bytes."""
    calls: list[str] = []

    def watch(module: Any, function: str) -> None:
        original = getattr(module, function)

        def counting(*arguments: Any) -> Any:
            calls.append(f"{function} {[len(one) if isinstance(one, bytes) else one for one in arguments]}")
            return original(*arguments)

        monkeypatch.setattr(module, function, counting)

    for module, functions in (
        (hmac, ("digest", "new", "compare_digest")),
        (hashlib, ("new", "sha256", "sha512", "shake_256", "pbkdf2_hmac")),
        (scram, ("prepare", "read_first", "read_final", "stored_key")),
    ):
        for function in functions:
            watch(module, function)
    return calls


def test_users_cannot_be_told_apart(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same is computed for each, and what they are sent looks the same, and is the same each time."""
    calls = watched(monkeypatch)
    seen, salts = set(), set()
    for name in NAMES:
        for _ in range(2):
            calls.clear()
            site.pauses.clear()
            steps = site.gatekeeper.begin(SHA_256, "c", None, PEER)
            assert steps is not None
            late: list[Outcome] = []
            challenge = steps.step(f"n,,n={name},r=0123456789".encode(), late.append)
            assert isinstance(challenge, Challenge)
            nonce, salt, iterations = challenge.data.decode().split(",")
            steps.step(f"c=biws,{nonce},p={'A' * 43}=".encode(), late.append)
            site.work()
            (failed,) = late
            assert isinstance(failed, Failed)
            salts.add(salt)
            computed = "\n".join(calls).replace(name, "NAME")
            seen.add((len(nonce), len(salt), iterations, failed.code, tuple(site.pauses), computed))
    (shape,) = seen
    assert shape[:5] == (2 + 10 + 24, 2 + 24, "i=5", ReturnCode.BAD_USER_NAME_OR_PASSWORD, (dialogue.PENALTY,))
    assert ("compare_digest [32, 32]" in shape[5], "pbkdf2_hmac" in shape[5]) == (True, False)
    assert len(salts) == len(NAMES)


def test_an_unknown_user_is_the_same_after_a_reload(site: Site) -> None:
    """Known ones are, too."""

    def salt(name: str) -> bytes:
        steps = site.gatekeeper.begin(SHA_256, "c", None, PEER)
        assert steps is not None
        challenge = steps.step(f"n,,n={name},r=0123456789".encode(), print)
        assert isinstance(challenge, Challenge)
        return challenge.data.split(b",")[1]

    before = [salt(name) for name in NAMES]
    site.gatekeeper.replace(Policy(site.passwords(*USERS, scram_line("new", b"x", iterations=5))))
    assert [salt(name) for name in NAMES] == before


@pytest.mark.parametrize(
    ("client", "client_id", "policy", "code", "why"),
    [
        (ann(), "c", {"deny_users": ("ann",)}, 5, "the user is in deny_users"),
        (ann(), None, {"deny_users": ("ann",)}, 5, "the user is in deny_users"),
        (ann("no"), "c", {"deny_users": ("ann",)}, 4, "wrong password"),
        (ann(), "c", {"client_ids": {"ann": ("x*",)}}, 5, "the user may not have this Client Identifier (client_ids)"),
        (
            ann(),
            "c",
            {"client_id_prefixes": ("x",)},
            2,
            "the Client Identifier begins with none of client_id_prefixes",
        ),
    ],
)
def test_the_policy_holds(
    client: ScramClient, client_id: str | None, policy: dict[str, Any], code: int, why: str, site: Site
) -> None:
    site.gatekeeper.replace(Policy(site.passwords(*USERS), **policy))
    assert site.log_in(client, client_id=client_id) == Failed(ReturnCode(code), why, "ann")


def test_who_is_in_already_keeps_its_identifier(site: Site) -> None:
    policy = Policy(site.passwords(*USERS), client_id_prefixes=("x",), client_ids={"ann": ("x*",)})
    site.gatekeeper.replace(policy)
    assert isinstance(site.log_in(ann(), client_id=None, username="ann"), Proved)


def test_the_broker_may_give_the_identifier(site: Site) -> None:
    site.gatekeeper.replace(Policy(site.passwords(*USERS), client_id_prefixes=("x",)))
    assert isinstance(site.log_in(ann(), client_id=""), Proved)


def test_a_user_that_has_been_named_stays_the_same(site: Site) -> None:
    """By CONNECT, by the certificate, or by the authentication before."""
    assert isinstance(site.log_in(ann(), username="ann"), Proved)
    why = "SCRAM-SHA-256 is for another user than the connection, which is 'eve''s"
    assert site.log_in(ann(), username="eve") == Failed(ReturnCode.NOT_AUTHORIZED, why, "ann")


def test_the_methods_are_those_that_the_file_has_users_for(site: Site) -> None:
    keeper = site.gatekeeper
    assert sorted(keeper.methods) == [SHA_256, SHA_512]
    assert [keeper.begin(method, "c", None, PEER) for method in ("", "PLAIN", "SCRAM-SHA-1", "scram-sha-256")] == [
        None
    ] * 4
    keeper.replace(Policy(site.passwords(USERS[0])))
    assert (list(keeper.methods), keeper.begin(SHA_512, "c", None, PEER)) == ([SHA_256], None)
    for policy in (Policy(site.passwords(USERS[3])), Policy(), Policy(proof="cn")):
        keeper.replace(policy)
        assert (list(keeper.methods), keeper.begin(SHA_256, "c", None, PEER)) == ([], None)


def test_a_first_message_may_come_later(site: Site) -> None:
    steps = site.gatekeeper.begin(SHA_256, "c", None, PEER)
    assert steps is not None
    assert steps.step(b"", print) == Challenge(b"")
    outcome = steps.step(ann().first(), print)
    assert isinstance(outcome, Challenge)
    assert outcome.data.startswith(b"r=")


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([b"", b""], "SCRAM-SHA-256: the first message does not begin with n,, or y,,"),
        ([b"x"], "SCRAM-SHA-256: the first message does not begin with n,, or y,,"),
        ([b"n,,n=ann,r=a", b""], "SCRAM-SHA-256: the second message does not have channel binding (c=), nonce (r=) "
                                 "and proof (p=)"),
        ([b"x", b"n,,n=ann,r=a"], "SCRAM-SHA-256: a message that nothing had asked for"),
    ],
)  # fmt: skip
def test_what_is_no_scram_fails_at_once(messages: list[bytes], why: str, site: Site) -> None:
    steps = site.gatekeeper.begin(SHA_256, "c", None, PEER)
    assert steps is not None
    outcomes = [steps.step(message, print) for message in messages]
    outcome = outcomes[-1]
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.why, site.jobs) == (ReturnCode.NOT_AUTHORIZED, why, [])


def test_a_message_while_the_proof_is_checked_fails(site: Site) -> None:
    steps = site.gatekeeper.begin(SHA_256, "c", None, PEER)
    assert steps is not None
    client = ann()
    challenge = steps.step(client.first(), print)
    assert isinstance(challenge, Challenge)
    final = client.final(challenge.data)
    assert callable(steps.step(final, print))
    outcome = steps.step(final, print)
    assert isinstance(outcome, Failed)


# --- guessing ---


def test_a_guess_takes_a_turn_and_keeps_its_thread(site: Site) -> None:
    """Nothing is known of a proof before its turn has come: who leaves meanwhile has learnt nothing."""
    pending: list[list[Outcome]] = []
    for guess in ("a", "b", "secret"):
        steps = site.gatekeeper.begin(SHA_256, "c", None, PEER)
        assert steps is not None
        client, late = ann(guess), list[Outcome]()
        challenge = steps.step(client.first(), late.append)
        assert isinstance(challenge, Challenge)
        assert callable(steps.step(client.final(challenge.data), late.append))
        pending.append(late)
    assert len(site.jobs) == 2  # of four threads
    assert pending == [[], [], []]
    site.work()
    assert ([type(late[0]) for late in pending], site.pauses) == ([Failed, Failed, Proved], [dialogue.PENALTY] * 2)


def test_who_leaves_is_asked_for_no_more(site: Site) -> None:
    late: list[Outcome] = []
    for _ in range(3):
        steps = site.gatekeeper.begin(SHA_256, "c", None, PEER)
        assert steps is not None
        client = ann("wrong")
        challenge = steps.step(client.first(), late.append)
        assert isinstance(challenge, Challenge)
        give_up = steps.step(client.final(challenge.data), late.append)
        assert callable(give_up)
        give_up()
    site.work()
    assert (late, len(site.pauses), site.checks._held) == ([], 2, {})


def test_too_many_who_wait_are_told_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, monkeypatch, memory=4096)
    outcome = site.log_in(ann())
    why = "too many passwords from this address wait to be checked"
    assert outcome == Failed(ReturnCode.SERVER_UNAVAILABLE, why, "ann")


# --- a reload in between ---


@pytest.mark.parametrize(
    ("line", "proved"),
    [
        (USERS[0], True),
        (scram_line("ann", b"another", iterations=5), False),
        (pbkdf2_line("ann", b"secret"), False),
        (USERS[1], False),
        (None, False),
    ],
)
def test_a_reload_between_the_steps_counts(line: str | None, proved: bool, site: Site) -> None:
    def reload(final: bytes) -> bytes:
        site.gatekeeper.replace(Policy() if line is None else Policy(site.passwords(line)))
        return final

    outcome = site.log_in(ann(), change=reload)
    if proved:
        assert isinstance(outcome, Proved)
    else:
        why = "the password file has changed meanwhile"
        assert outcome == Failed(ReturnCode.BAD_USER_NAME_OR_PASSWORD, why, "ann")


def test_after_a_reload_who_has_new_keys_goes(site: Site) -> None:
    stays = site.gatekeeper.replace(Policy(site.passwords(USERS[0], scram_line("eve", b"new", iterations=5))))
    assert [stays(name, "c") for name in ("ann", "eve", "big")] == [True, False, False]
