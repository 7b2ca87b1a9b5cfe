"""Who may connect: the order of the questions, and what a reload in between changes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.auth.acl import Acl
from broker.auth.checks import Checks
from broker.auth.gatekeeper import Gatekeeper, Policy, _fits
from broker.auth.passwords import Passwords, set_password
from broker.core.ports import GIVEN_CLIENT_ID, Verdict
from broker.wire.codes import ReturnCode
from broker.wire.packets import Connect
from tests.password_lines import pbkdf2_line, sha512_line

PEER = "192.0.2.1:1000"

Job = tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]


class Elsewhere:
    """Runs jobs when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.checks = Checks(self.submit, 4, lambda answer: answer())

    def submit(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        self.jobs.append((job, done))

    def run(self) -> None:
        job, done = self.jobs.pop(0)
        done(job(), None)


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


def passwords(directory: Path, **users: str) -> Passwords:
    path = directory / f"passwords{len(list(directory.iterdir()))}"
    path.touch()
    for user, password in users.items():
        set_password(str(path), user, password.encode(), create=False, iterations=1)
    return Passwords.read(str(path))


def connect(client_id: str = "c", username: str | None = None, password: bytes | None = None) -> Connect:
    return Connect(4, client_id, True, 0, None, username, password)


def answer(gatekeeper: Gatekeeper, elsewhere: Elsewhere, packet: Connect, proved: bool = False) -> Verdict:
    """The answer, however it comes."""
    answers: list[Verdict] = []
    at_once = gatekeeper.admit(packet, PEER, answers.append, proved)
    if isinstance(at_once, Verdict):
        answers.append(at_once)
    while elsewhere.jobs:
        elsewhere.run()
    (found,) = answers
    assert bool(found.why) is (found.code != 0)
    return found


def verdict(gatekeeper: Gatekeeper, elsewhere: Elsewhere, packet: Connect, proved: bool = False) -> ReturnCode:
    """The return code of the answer."""
    return answer(gatekeeper, elsewhere, packet, proved).code


@pytest.mark.parametrize(
    ("policy", "packet", "code"),
    [
        pytest.param(Policy(), connect(), 0, id="anonymous"),
        pytest.param(Policy(allow_anonymous=False), connect(), 5, id="anonymous-refused"),
        pytest.param(Policy(), connect(username="ann"), 0, id="a-name-that-nobody-checks"),
        pytest.param(Policy(allow_anonymous=False), connect(username="ann"), 5, id="a-name-is-no-proof"),
        pytest.param(Policy(max_client_id=23), connect("x" * 23), 0, id="longest-identifier"),
        pytest.param(Policy(max_client_id=23), connect("x" * 24), 2, id="longer-identifier"),
        pytest.param(Policy(client_id_prefixes=("a-", "b-")), connect("b-1"), 0, id="a-known-prefix"),
        pytest.param(Policy(client_id_prefixes=("a-", "b-")), connect("c-1"), 2, id="another-prefix"),
        pytest.param(Policy(client_id_prefixes=("a-",)), connect(""), 0, id="an-empty-identifier-has-no-prefix"),
        pytest.param(Policy(deny_users=("ann",)), connect(username="ann"), 5, id="a-denied-user"),
        pytest.param(Policy(deny_users=("ann",)), connect(username="bob"), 0, id="another-user"),
        pytest.param(Policy(client_ids={"ann": ("x*",)}), connect("xy", "ann"), 0, id="an-identifier-of-the-user"),
        pytest.param(Policy(client_ids={"ann": ("x*",)}), connect("yx", "ann"), 5, id="not-of-the-user"),
        pytest.param(Policy(client_ids={"ann": ("x*",)}), connect("yx", "bob"), 0, id="of-a-user-not-named"),
        pytest.param(Policy(client_ids={"*": ("%u-*",)}), connect("bob-1", "bob"), 0, id="with-the-users-name"),
        pytest.param(Policy(client_ids={"*": ("%u-*",)}), connect("ann-1", "bob"), 5, id="with-anothers-name"),
        pytest.param(Policy(client_ids={"*": ("%u",)}), connect("a.b", "a.b"), 0, id="a-name-is-no-pattern"),
        pytest.param(Policy(client_ids={"*": ("%u",)}), connect("axb", "a.b"), 5, id="a-dot-is-a-dot"),
        pytest.param(Policy(client_ids={"*": ("%u",)}), connect("xyz", "*"), 5, id="a-star-in-a-name-is-no-pattern"),
        pytest.param(Policy(client_ids={"ann": ()}), connect("c", "ann"), 5, id="a-user-without-identifiers"),
    ],
)
def test_the_policy_decides(policy: Policy, packet: Connect, code: int, elsewhere: Elsewhere) -> None:
    assert verdict(Gatekeeper(policy, elsewhere.checks), elsewhere, packet) == code


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        pytest.param(connect("c", "ann", b"secret"), 0, id="right"),
        pytest.param(connect("c", "ann", b"wrong"), 4, id="wrong"),
        pytest.param(connect("c", "ann"), 4, id="none"),
        pytest.param(connect("c", "nobody", b"secret"), 4, id="unknown-user"),
        pytest.param(connect("c", "eve", b"secret"), 5, id="right-but-denied"),
        pytest.param(connect("c", "eve", b"wrong"), 4, id="denied-users-are-not-told-apart-without-their-password"),
        pytest.param(connect("x", "bob", b"secret"), 5, id="right-but-not-under-this-identifier"),
        pytest.param(connect("c"), 5, id="anonymous"),
    ],
)
def test_a_password_is_checked_before_anything_that_concerns_the_user(
    packet: Connect, code: int, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    known = passwords(tmp_path, ann="secret", bob="secret", eve="secret")
    policy = Policy(known, allow_anonymous=False, deny_users=("eve",), client_ids={"bob": ("b",)})
    assert verdict(Gatekeeper(policy, elsewhere.checks), elsewhere, packet) == code


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        ("192.0.2.1:1000", "192.0.2.1"),
        ("[2001:db8::1]:1000", "2001:0db8:0000:0000"),
        ("[::ffff:192.0.2.1]:1000", "192.0.2.1"),
        ("127.0.0.1:1000", ""),
        ("127.9.9.9:1000", ""),
        ("[::1]:1000", ""),
        ("unix:uid-1000:pid-4711", ""),
    ],
)
def test_this_machine_is_no_place_like_others(peer: str, origin: str, elsewhere: Elsewhere) -> None:
    """A proxy on it may have all clients behind it."""
    assert Gatekeeper(Policy(), elsewhere.checks).origin(peer) == origin


@pytest.mark.parametrize("line", [sha512_line, pbkdf2_line])
@pytest.mark.parametrize(("password", "code"), [(b"", 0), (None, 4), (b"\0", 4)])
def test_no_password_is_not_an_empty_one(
    password: bytes | None, code: int, line: Callable[[str, bytes], str], elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Other programs write the hash of an empty password. Also not where it has been right before."""
    path = tmp_path / "passwords"
    path.write_text(line("ann", b""))
    gatekeeper = Gatekeeper(Policy(Passwords.read(str(path))), elsewhere.checks)
    asked = connect("c", "ann", password)
    assert verdict(gatekeeper, elsewhere, asked) == code
    assert verdict(gatekeeper, elsewhere, connect("c", "ann", b"")) == 0
    assert verdict(gatekeeper, elsewhere, asked) == code


@pytest.mark.parametrize(
    ("policy", "packet", "why"),
    [
        (Policy(allow_anonymous=False), connect(), "no user name was given, and allow_anonymous is false"),
        (
            Policy(allow_anonymous=False, proof="cn"),
            connect(),
            "no certificate was shown, and allow_anonymous is false",
        ),
        (
            Policy(allow_anonymous=False),
            connect(username="ann"),
            "user name not checked, as this listener has no password file, and allow_anonymous is false",
        ),
        (
            Policy(proof="cn"),
            connect(username="ann"),
            "user name not checked: on this listener the client's certificate names the user (certificate_user)",
        ),
        (
            Policy(max_client_id=23),
            connect("x" * 24),
            "the Client Identifier is longer than 23 characters (max_client_id)",
        ),
        (
            Policy(client_id_prefixes=("a-",)),
            connect("b"),
            "the Client Identifier begins with none of client_id_prefixes",
        ),
        (Policy(deny_users=("ann",)), connect(username="ann"), "the user is in deny_users"),
        (
            Policy(client_ids={"ann": ("x",)}),
            connect("y", "ann"),
            "the user may not have this Client Identifier (client_ids)",
        ),
    ],
)
def test_a_refusal_says_which_option_it_comes_from(
    policy: Policy, packet: Connect, why: str, elsewhere: Elsewhere
) -> None:
    assert answer(Gatekeeper(policy, elsewhere.checks), elsewhere, packet).why == why


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (connect("c", "ann", b"wrong"), "wrong password"),
        (connect("c", "ann"), "no password was given"),
        (connect("c", "bob", b"x"), "there is no such user in the password file"),
    ],
)
def test_the_log_says_what_is_wrong_with_a_password(
    packet: Connect, why: str, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    gatekeeper = Gatekeeper(Policy(passwords(tmp_path, ann="secret")), elsewhere.checks)
    assert answer(gatekeeper, elsewhere, packet) == (4, why)


@pytest.mark.parametrize(
    ("policy", "name", "why"),
    [
        (Policy(proof="cn"), "", "the client's certificate names no user (certificate_user)"),
        (Policy(proof="cn"), "a\nb", "the user name in the client's certificate is not printable"),
        (Policy(), "ann", "certificates do not name users here any more (certificate_user)"),
    ],
)
def test_the_log_says_what_is_wrong_with_a_certificate_s_name(
    policy: Policy, name: str, why: str, elsewhere: Elsewhere
) -> None:
    found = answer(Gatekeeper(policy, elsewhere.checks), elsewhere, connect(username=name), proved=True)
    assert found == (5, why)


def test_a_pair_that_was_right_before_needs_no_worker(elsewhere: Elsewhere, tmp_path: Path) -> None:
    gatekeeper = Gatekeeper(Policy(passwords(tmp_path, ann="secret")), elsewhere.checks)
    assert verdict(gatekeeper, elsewhere, connect("c", "ann", b"secret")) == 0
    answers: list[Verdict] = []
    assert gatekeeper.admit(connect("c", "ann", b"secret"), PEER, answers.append) == (0, "")
    assert (answers, elsewhere.jobs) == ([], [])


@settings(deadline=None)
@given(
    st.text("ab*.\n", max_size=6) | st.text("ab*u%", max_size=6),
    st.text("ab*%u.", max_size=3),
    st.text("ab.\n", max_size=8),
)
def test_a_pattern_agrees_with_a_regular_expression(pattern: str, user: str, client_id: str) -> None:
    parts = [re.escape(part.replace("%u", user)) for part in pattern.split("*")]
    expected = re.fullmatch(".*".join(parts), client_id, re.DOTALL) is not None
    assert expected == _fits(pattern, user, client_id)


def test_no_identifier_is_looked_at_for_long() -> None:
    """A regular expression takes time that grows with a power of the length: here some ten seconds."""
    start = time.process_time()
    assert not _fits("*a*a*b", "u", "a" * 4_000)
    assert time.process_time() - start < 2.0


# --- a reload ---


def test_a_reload_while_a_password_is_being_checked_counts(elsewhere: Elsewhere, tmp_path: Path) -> None:
    # The check was begun with the old file, in which this user's password was right.
    gatekeeper = Gatekeeper(Policy(passwords(tmp_path, ann="secret")), elsewhere.checks)
    answers: list[Verdict] = []
    assert not isinstance(gatekeeper.admit(connect("c", "ann", b"secret"), PEER, answers.append), Verdict)
    gatekeeper.replace(Policy(passwords(tmp_path, bob="secret")))
    elsewhere.run()
    assert answers == []
    elsewhere.run()
    assert [one.code for one in answers] == [ReturnCode.BAD_USER_NAME_OR_PASSWORD]


def test_a_reload_that_lets_everybody_in_ends_a_check(elsewhere: Elsewhere, tmp_path: Path) -> None:
    gatekeeper = Gatekeeper(Policy(passwords(tmp_path, ann="secret")), elsewhere.checks)
    answers: list[Verdict] = []
    assert not isinstance(gatekeeper.admit(connect("c", "ann", b"wrong"), PEER, answers.append), Verdict)
    gatekeeper.replace(Policy(allow_anonymous=True))
    elsewhere.run()
    assert ([one.code for one in answers], elsewhere.jobs) == ([ReturnCode.ACCEPTED], [])


def test_who_leaves_is_checked_no_more_after_a_reload_either(elsewhere: Elsewhere, tmp_path: Path) -> None:
    gatekeeper = Gatekeeper(Policy(passwords(tmp_path, ann="secret")), elsewhere.checks)
    answers: list[Verdict] = []
    give_up = gatekeeper.admit(connect("c", "ann", b"secret"), PEER, answers.append)
    assert not isinstance(give_up, Verdict)
    gatekeeper.replace(Policy(passwords(tmp_path, ann="secret")))
    elsewhere.run()  # by the old file; it is asked again
    give_up()
    elsewhere.run()
    assert (answers, elsewhere.checks._held) == ([], {})


def test_equal_checks_are_one_and_others_are_not(elsewhere: Elsewhere, tmp_path: Path) -> None:
    gatekeeper = Gatekeeper(Policy(passwords(tmp_path, ann="secret", bob="secret")), elsewhere.checks)
    answers: list[Verdict] = []
    for username, password in (("ann", b"secret"), ("ann", b"wrong"), ("bob", b"secret")):
        for n in range(3):
            gatekeeper.admit(connect(f"c{n}", username, password), f"192.0.2.{n}:1", answers.append)
    computed = 0
    while elsewhere.jobs:
        elsewhere.run()
        computed += 1
    assert (computed, sorted(one.code for one in answers)) == (3, [0] * 6 + [4] * 3)


def test_who_may_stay(elsewhere: Elsewhere, tmp_path: Path) -> None:
    old = passwords(tmp_path, ann="secret", bob="secret")
    path = tmp_path / "passwords0"
    gatekeeper = Gatekeeper(Policy(old, allow_anonymous=True), elsewhere.checks)

    stays = gatekeeper.replace(Policy(Passwords.read(str(path)), allow_anonymous=True))
    assert [stays(name, "c") for name in ("ann", "bob", "nobody", None)] == [True, True, False, True]

    set_password(str(path), "bob", b"another", create=False, iterations=1)
    stays = gatekeeper.replace(Policy(Passwords.read(str(path)), allow_anonymous=False))
    assert [stays(name, "c") for name in ("ann", "bob", None)] == [True, False, False]

    stays = gatekeeper.replace(Policy(Passwords.read(str(path)), deny_users=("ann",), client_ids={"bob": ("b",)}))
    assert [stays("ann", "c"), stays("bob", "b"), stays("bob", "c")] == [False, True, False]


def test_names_that_nobody_checked_do_not_stay_when_there_are_passwords(elsewhere: Elsewhere, tmp_path: Path) -> None:
    gatekeeper = Gatekeeper(Policy(), elsewhere.checks)
    stays = gatekeeper.replace(Policy(passwords(tmp_path, ann="secret")))
    assert stays("ann", "c") is False


def test_after_a_reload_who_has_an_identifier_that_is_not_permitted_any_more_goes(elsewhere: Elsewhere) -> None:
    gatekeeper = Gatekeeper(Policy(allow_anonymous=True), elsewhere.checks)
    stays = gatekeeper.replace(Policy(allow_anonymous=True, client_id_prefixes=("dev-",), max_client_id=23))
    names = ("dev-1", "other", "dev-" + "x" * 20, GIVEN_CLIENT_ID + "0123")
    assert [stays(None, name) for name in names] == [True, False, False, True]


# --- rights ---


@pytest.mark.parametrize(
    ("policy", "name", "allowed"),
    [
        (Policy(proof="cn"), "ann", True),
        (Policy(proof="cn"), "Ann", False),
        (Policy(proof="cn"), None, False),
        (Policy(), "ann", False),  # nobody has checked it
        (Policy(allow_user_change=True), "ann", False),
        (Policy(proof="cn", allow_user_change=True), "bob", True),
        (Policy(proof="cn", allow_user_change=True), None, False),
    ],
    ids=str,
)
def test_who_may_have_the_session_of_ann(policy: Policy, name: str | None, allowed: bool, elsewhere: Elsewhere) -> None:
    assert Gatekeeper(policy, elsewhere.checks).may_take_over("ann", name) is allowed


def test_rights_follow_the_checked_name_only(elsewhere: Elsewhere, tmp_path: Path) -> None:
    path = tmp_path / "acl"
    path.write_text("topic readwrite open\nuser ann\ntopic readwrite private\n")
    acl = Acl.read(str(path))
    checked = Gatekeeper(Policy(passwords(tmp_path, ann="secret"), acl), elsewhere.checks).rights("ann", "c")
    unchecked = Gatekeeper(Policy(None, acl), elsewhere.checks).rights("ann", "c")
    assert checked is not None
    assert unchecked is not None
    assert [checked.may_publish(topic) for topic in (b"private", b"open")] == [True, False]
    assert [unchecked.may_publish(topic) for topic in (b"private", b"open")] == [False, True]
    assert Gatekeeper(Policy(), elsewhere.checks).rights("ann", "c") is None


# --- names that the transport has proved ---


@pytest.mark.parametrize(
    ("policy", "packet", "code"),
    [
        pytest.param(Policy(proof="cn", allow_anonymous=False), connect(username="ann"), 0, id="proved"),
        pytest.param(Policy(proof="cn", deny_users=("ann",)), connect(username="ann"), 5, id="denied"),
        pytest.param(Policy(proof="cn", client_ids={"ann": ("x",)}), connect("y", "ann"), 5, id="identifier"),
        pytest.param(Policy(proof="cn"), connect(username=""), 5, id="no-name"),
        pytest.param(Policy(proof="cn"), connect(username="a\nb"), 5, id="control-character"),
        pytest.param(Policy(), connect(username="ann"), 5, id="proofs-count-no-more"),
    ],
)
def test_a_proved_name(policy: Policy, packet: Connect, code: int, elsewhere: Elsewhere) -> None:
    assert verdict(Gatekeeper(policy, elsewhere.checks), elsewhere, packet, proved=True) == code


def test_a_proved_name_needs_no_password_and_another_does(tmp_path: Path, elsewhere: Elsewhere) -> None:
    gatekeeper = Gatekeeper(Policy(passwords(tmp_path, ann="secret"), proof="cn"), elsewhere.checks)
    assert verdict(gatekeeper, elsewhere, connect(username="bob"), proved=True) == 0
    assert verdict(gatekeeper, elsewhere, connect(username="bob")) == 4
    assert verdict(gatekeeper, elsewhere, connect(username="ann", password=b"secret")) == 0


def test_where_names_are_proved_one_that_is_not_is_no_name(elsewhere: Elsewhere) -> None:
    """It would have the rights of whom it names."""
    gatekeeper = Gatekeeper(Policy(allow_anonymous=True, proof="cn"), elsewhere.checks)
    assert verdict(gatekeeper, elsewhere, connect(username="ann")) == 5
    assert verdict(gatekeeper, elsewhere, connect()) == 0


def test_proved_names_have_rights(tmp_path: Path, elsewhere: Elsewhere) -> None:
    path = tmp_path / "acl"
    path.write_text("user ann\ntopic readwrite x\n")
    acl = Acl.read(str(path))
    for proof, allowed in (("cn", True), (None, False)):
        rights = Gatekeeper(Policy(acl=acl, proof=proof), elsewhere.checks).rights("ann", "c")
        assert rights is not None
        assert rights.may_publish(b"x") is allowed


def test_who_stays_of_those_whose_name_was_proved(tmp_path: Path, elsewhere: Elsewhere) -> None:
    gatekeeper = Gatekeeper(Policy(proof="cn"), elsewhere.checks)
    stays = gatekeeper.replace(Policy(passwords(tmp_path, bob="x"), proof="cn", deny_users=("eve",)))
    assert [stays(name, "c", True) for name in ("ann", "eve")] == [True, False]
    stays = gatekeeper.replace(Policy(proof="subject"))
    assert stays("ann", "c", True) is False  # the same name would now be somebody else's
    stays = gatekeeper.replace(Policy())
    assert stays("ann", "c", True) is False
    stays = gatekeeper.replace(Policy(proof="cn"))
    assert stays("ann", "c") is False  # nobody had checked it
