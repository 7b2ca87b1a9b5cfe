"""The password file, together with mosquitto's own tools for the same file."""

import errno
import hashlib
import os
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from broker.auth.passwords import FileError, Passwords, delete_user, set_password
from tests.password_lines import b64, pbkdf2_line, scram_line, sha512_line, written


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "users")


# --- reading -----------------------------------------------------------------------------------------------------


def test_reads_both_kinds_between_comments_and_blank_lines(path: str) -> None:
    text = "# a comment\n\n" + pbkdf2_line("bob", b"one") + "   \r\n" + sha512_line("al", b"two") + "#x:y\n"
    known = Passwords.read(written(path, text))
    answers = {(user, pw): known.check(user, pw) for user in ("bob", "al", "#x") for pw in (b"one", b"two", b"")}
    assert [pair for pair, right in answers.items() if right] == [("bob", b"one"), ("al", b"two")]


def test_blanks_around_names_and_hashes_do_not_count(path: str) -> None:
    line = pbkdf2_line("bob", b"one").replace("bob:", " bob\t: ").replace("\n", " \r\n")
    known = Passwords.read(written(path, line))
    assert (known.check("bob", b"one"), known.check(" bob\t", b"one")) == (True, False)


def test_names_and_passwords_are_any_text(path: str) -> None:
    password = bytes(range(256))
    known = Passwords.read(written(path, pbkdf2_line("J\u00f6rg \u2028 x", password, salt=bytes(64))))
    assert (known.check("J\u00f6rg \u2028 x", password), known.check("Jo\u0308rg \u2028 x", password)) == (True, False)


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "# one line\r:$7$\n"])
def test_an_empty_file_admits_nobody(path: str, text: str) -> None:
    known = Passwords.read(written(path, text))
    assert [known.check(user, pw) for user in ("", "bob") for pw in (b"", b"x")] == [False, False, False, False]


HASH = b64(bytes(64))
ONLY = "only $7$, $6$, $argon2id$ and SCRAM's"
NONE = "this is no $7$, $6$, $argon2id$ or SCRAM hash; if it is a plain password"
KEY = b64(bytes(32))
SET = "set the password of 'bob' with the passwd command"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("bob", "there is no ':' between a user name and a hash: write the line with the passwd command"),
        (f":$7$1$AAAA${HASH}", "the user name is empty: choose one"),
        (f"  #x:$7$1$AAAA${HASH}", "the user name '#x' begins with '#', as comments do: choose another"),
        (f"a\0b:$7$1$AAAA${HASH}", "the user name 'a\\x00b' contains a control character: choose one without"),
        ("bob:", f"the hash is missing: {SET}"),
        ("bob:secret", f"{NONE}: {SET}"),
        ("bob:$ecret$", f"{NONE}: {SET}"),
        ("bob:$", f"{NONE}: {SET}"),
        ("bob:$argon2i$v=19$m=1", f"a hash of the kind argon2i cannot be checked here, {ONLY}: {SET}"),
        ("bob:$2b$12$abc", f"a hash of the kind 2b cannot be checked here, {ONLY}: {SET}"),
        (f"bob:$7$1${HASH}", f"a $7$ hash has 3 fields, not 2: {SET}"),
        (f"bob:$6$1$AAAA${HASH}", f"a $6$ hash has 2 fields, not 3: {SET}"),
        (f"bob:$7$0$AAAA${HASH}", f"the iterations must be a number from 1 to 10000000: {SET}"),
        (f"bob:$7$10000001$AAAA${HASH}", f"the iterations must be a number from 1 to 10000000: {SET}"),
        (f"bob:$7$-1$AAAA${HASH}", f"the iterations must be a number from 1 to 10000000: {SET}"),
        (f"bob:$7$\u0661$AAAA${HASH}", f"the iterations must be a number from 1 to 10000000: {SET}"),
        (f"bob:$7$1$A$A${HASH}", f"a $7$ hash has 3 fields, not 4: {SET}"),
        (f"bob:$7$1$A!AA${HASH}", f"the salt is not valid base64: {SET}"),
        (f"bob:$7$1$\u00e9AAA${HASH}", f"the salt is not valid base64: {SET}"),
        (f"bob:$7$1$${HASH}", f"the salt is empty: {SET}"),
        (f"bob:$7$1$AAAA${HASH}:x", f"the hash is not valid base64: {SET}"),
        ("bob:$6$AAAA$AAAA", f"the hash has 3 bytes, not 64: {SET}"),
        (f"bob:$scram-sha-256$1$AAAA${KEY}", f"a $scram-sha-256$ hash has 4 fields, not 3: {SET}"),
        (f"bob:$scram-sha-256$0$AAAA${KEY}${KEY}", f"the iterations must be a number from 1 to 10000000: {SET}"),
        (f"bob:$scram-sha-256$1$${KEY}${KEY}", f"the salt is empty: {SET}"),
        (f"bob:$scram-sha-256$1$AAAA${KEY}$AAAA", f"the key has 3 bytes, not 32: {SET}"),
        (f"bob:$scram-sha-512$1$AAAA${KEY}${KEY}", f"the key has 32 bytes, not 64: {SET}"),
        (f"bob:$scram-sha-256$1$AAAA${KEY}$AA!A", f"the key is not valid base64: {SET}"),
        (
            "bob:$scram-sha-1$1$AAAA$AAAA$AAAA",
            f"a hash of the kind scram-sha-1 cannot be checked here, {ONLY}: {SET}",
        ),
        (
            f"Jo\u0308rg:$scram-sha-256$1$AAAA${KEY}${KEY}",
            "SCRAM writes the user name 'Jo\\u0308rg' as 'J\\xf6rg': choose that",
        ),
    ],
)
def test_a_bad_line_is_an_error_that_says_where_and_what_to_do(path: str, line: str, why: str) -> None:
    written(path, "# one\n" + pbkdf2_line("al", b"x") + line + "\n")
    with pytest.raises(FileError) as caught:
        Passwords.read(path)
    assert (caught.value.path, caught.value.line, caught.value.why) == (path, 3, why)
    assert str(caught.value) == f"{path}:3: {why}"


def test_a_user_twice_is_an_error_that_names_both_lines(path: str) -> None:
    written(path, pbkdf2_line("bob", b"x") + "\n" + pbkdf2_line("bob ", b"y"))
    with pytest.raises(FileError) as caught:
        Passwords.read(path)
    assert str(caught.value) == f"{path}:3: user 'bob' is on line 1 already: remove one of the two"


@pytest.mark.parametrize(
    ("data", "where", "why"),
    [
        (b"\xef\xbb\xbfbob:x", ":1", "it begins with a byte-order mark: save the file as UTF-8 without one"),
        (b"\nb\xf6b:x\n", ":2", "this line is not valid UTF-8: save the file as UTF-8"),
    ],
)
def test_other_encodings_are_errors(path: str, data: bytes, where: str, why: str) -> None:
    Path(path).write_bytes(data)
    with pytest.raises(FileError) as caught:
        Passwords.read(path)
    assert str(caught.value) == f"{path}{where}: {why}"


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    messages = []
    for name in (tmp_path / "missing", tmp_path, "a\0b"):
        with pytest.raises(FileError) as caught:
            Passwords.read(str(name))
        messages.append(str(caught.value))
    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(FileError) as caught:
        Passwords.read("secret")
    messages.append(str(caught.value))
    assert messages == [
        f"{tmp_path}/missing: there is no such file: create it, or correct its name",
        f"{tmp_path}: this is a directory: name a file",
        "a\0b: it cannot be read: embedded null byte",
        "secret: it may not be read: give the user that runs this process read permission",
    ]


# --- checking ----------------------------------------------------------------------------------------------------


def test_recall_knows_what_check_found_right(path: str) -> None:
    known = Passwords.read(written(path, pbkdf2_line("bob", b"one") + sha512_line("al", b"two")))
    before = known.recall("bob", b"one")
    checked = [known.check(user, pw) for user, pw in (("bob", b"one"), ("al", b"one"), ("eve", b"one"))]
    after = [known.recall(user, pw) for user, pw in (("bob", b"one"), ("al", b"one"), ("eve", b"one"), ("bo", b"bone"))]
    assert (before, checked, after) == (None, [True, False, False], [True, None, None, None])


@pytest.mark.parametrize("password", [b"", b"one", b"x" * 127, b"x" * 128, b"x" * 129])
@pytest.mark.parametrize("padding", [b"\0", b"\0" * 2, b"\0" * 125, b"\0" * 128])
def test_nothing_may_stand_behind_a_password(path: str, password: bytes, padding: bytes) -> None:
    """HMAC, within PBKDF2, pads a short key with NULs."""
    known = Passwords.read(written(path, pbkdf2_line("bob", password) + sha512_line("al", password)))
    assert [known.check(user, password) for user in ("bob", "al")] == [True, True]
    assert [known.check(user, password + padding) for user in ("bob", "al")] == [False, False]
    assert [known.check(user, padding + password) for user in ("bob", "al")] == [False, False]
    assert known.recall("bob", password + padding) is None


def test_another_reading_of_the_file_recalls_nothing_and_shares_no_digest(path: str) -> None:
    written(path, pbkdf2_line("bob", b"one"))
    first, second = Passwords.read(path), Passwords.read(path)
    first.check("bob", b"one")
    recalled = second.recall("bob", b"one")
    second.check("bob", b"one")
    assert (recalled, len(first._remembered.keys() | second._remembered.keys())) == (None, 2)


@pytest.mark.parametrize(("remember", "expected"), [(2, [True, None, True]), (1, [None, None, True]), (0, [None] * 3)])
def test_only_the_last_used_pairs_are_remembered(path: str, remember: int, expected: list[bool | None]) -> None:
    users = ("a", "b", "c")
    known = Passwords.read(written(path, "".join(pbkdf2_line(u, b"x") for u in users)), remember=remember)
    for user in ("a", "b", "a", "c"):
        known.recall(user, b"x") or known.check(user, b"x")
    assert [known.recall(user, b"x") for user in users] == expected


def test_a_check_costs_the_same_for_every_user_and_for_nobody(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = pbkdf2_line("cheap", b"x", iterations=3) + pbkdf2_line("dear", b"x", iterations=50)
    known = Passwords.read(written(path, text + sha512_line("old", b"x")))
    work: list[tuple[str, int]] = []
    pbkdf2, sha512 = hashlib.pbkdf2_hmac, hashlib.sha512

    def counting_pbkdf2(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        work.append(("pbkdf2", iterations))
        return pbkdf2(name, password, salt, iterations)

    def counting_sha512(data: bytes) -> Any:
        work.append(("sha512", len(data)))
        return sha512(data)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting_pbkdf2)
    monkeypatch.setattr(hashlib, "sha512", counting_sha512)
    costs = []
    for user in ("cheap", "dear", "old", "nobody", ""):
        work.clear()
        assert known.check(user, b"wrong") is False
        costs.append((len(work), sum(n for kind, n in work if kind == "pbkdf2"), work[0]))
    assert costs == [(3, 51, ("sha512", len(b"wrong") + 12))] * 5


def test_threads_may_check_and_recall_together(path: str) -> None:
    users = [f"u{i}" for i in range(8)]
    known = Passwords.read(written(path, "".join(pbkdf2_line(u, u.encode()) for u in users)), remember=3)

    def work(i: int) -> tuple[bool, bool]:
        user = users[i % 8]
        known.recall(user, b"wrong")
        return known.check(user, user.encode()), known.check(user, b"wrong")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(400)))
    assert (results, len(known._remembered)) == ([(True, False)] * 400, 3)


# --- changing ----------------------------------------------------------------------------------------------------


def test_a_new_file_is_for_its_owner_only(path: str) -> None:
    new = set_password(path, "bob", b"one", create=True, iterations=5)
    first, _, rest = Path(path).read_text().partition("$7$5$")
    assert (new, first, len(rest), stat.S_IMODE(os.stat(path).st_mode)) == (True, "bob:", 16 + 1 + 88 + 1, 0o600)
    assert Passwords.read(path).check("bob", b"one") is True


def test_the_default_price_is_the_documented_one(path: str) -> None:
    set_password(path, "bob", b"one", create=True)
    assert Path(path).read_text().startswith("bob:$7$210000$") is True


def test_other_lines_mode_and_owner_stay(path: str) -> None:
    before = "# mine\r\n\r\n" + pbkdf2_line("al", b"x") + "bob:plain\r\nkept:plain\n" + "bob :again\nlast:no-end"
    owner = (1, 1) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(written(path, before), *owner)
    os.chmod(path, 0o640)
    new = set_password(path, "bob", b"one", create=False, iterations=1)
    after = os.stat(path)
    lines = Path(path).read_bytes().decode().split("\n")
    line = lines.pop(3)
    assert lines == ["# mine\r", "\r", pbkdf2_line("al", b"x").rstrip(), "kept:plain", "last:no-end", ""]
    assert (new, line[:9], line[-1]) == (False, "bob:$7$1$", "\r")
    assert (stat.S_IMODE(after.st_mode), (after.st_uid, after.st_gid)) == (0o640, owner)
    assert os.listdir(os.path.dirname(path)) == ["users"]


def test_delete_takes_the_user_and_nothing_else(path: str) -> None:
    written(path, "# bob:x\nbob:1\nbobby:2\n bob :3\n")
    delete_user(path, "bob")
    assert Path(path).read_text() == "# bob:x\nbobby:2\n"


@pytest.mark.parametrize(
    ("user", "hint"),
    [("bobb", "; did you mean 'bobby' or 'bob'?"), ("zzz", ""), ("b\udcffb", "; did you mean 'bob'?")],
)
def test_delete_of_an_unknown_user_names_the_nearest(path: str, user: str, hint: str) -> None:
    text = "# bobb:x\nbob:1\nbobby:2\n"
    with pytest.raises(FileError) as caught:
        delete_user(written(path, text), user)
    assert (str(caught.value), Path(path).read_text()) == (f"{path}: there is no user {user!r}{hint}", text)


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("", "the user name is empty: choose one"),
        ("a:b", "the user name 'a:b' contains ':', which ends a name in this file: choose one without"),
        ("a\nb", "the user name 'a\\nb' contains a control character: choose one without"),
        ("a\x7f", "the user name 'a\\x7f' contains a control character: choose one without"),
        ("a\x85", "the user name 'a\\x85' contains a control character: choose one without"),
        ("#a", "the user name '#a' begins with '#', as comments do: choose another"),
        (" a", "the user name ' a' begins or ends with a space, which this file does not keep: leave it out"),
        ("\udcff", "the user name '\\udcff' is not valid UTF-8: choose another"),
        ("a" * 65536, f"the user name '{'a' * 57}...' has 65536 bytes: choose one of at most 65535"),
    ],
)
def test_names_that_a_file_cannot_hold_are_refused(path: str, user: str, why: str) -> None:
    with pytest.raises(FileError) as caught:
        set_password(path, user, b"x", create=True, iterations=1)
    assert (str(caught.value), os.path.exists(path)) == (f"{path}: {why}", False)


@pytest.mark.parametrize(
    ("password", "iterations", "why"),
    [
        (b"", 1, "the password is empty: choose one"),
        (b"a\0", 1, "the password contains a NUL character, which mosquitto does not accept: choose one without"),
        (b"a" * 65536, 1, "the password has 65536 bytes: choose one of at most 65535"),
        (b"a", 0, "0 iterations: choose a number from 1 to 10000000"),
        (b"a", 10_000_001, "10000001 iterations: choose a number from 1 to 10000000"),
    ],
)
def test_passwords_that_nobody_should_have_are_refused(path: str, password: bytes, iterations: int, why: str) -> None:
    with pytest.raises(FileError) as caught:
        set_password(path, "bob", password, create=True, iterations=iterations)
    assert (str(caught.value), os.path.exists(path)) == (f"{path}: {why}", False)


def test_without_create_a_missing_file_is_an_error(path: str) -> None:
    with pytest.raises(FileError) as at_set:
        set_password(path, "bob", b"x", create=False, iterations=1)
    with pytest.raises(FileError) as at_delete:
        delete_user(path, "bob")
    expected = f"{path}: there is no such file: create it, or correct its name"
    assert (str(at_set.value), str(at_delete.value)) == (expected, expected)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        set_password(f"{tmp_path}/no/users", "bob", b"x", create=True, iterations=1)
    why = f"there is no directory '{tmp_path}/no': create it, or correct its name"
    assert str(caught.value) == f"{tmp_path}/no/users: {why}"


def test_a_link_stays_a_link(path: str, tmp_path: Path) -> None:
    os.symlink("users", tmp_path / "link")
    set_password(str(tmp_path / "link"), "bob", b"one", create=True, iterations=1)
    assert (os.readlink(tmp_path / "link"), Passwords.read(path).check("bob", b"one")) == ("users", True)


def test_changes_at_the_same_time_lose_none(path: str) -> None:
    users = [f"u{i}" for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda user: set_password(path, user, b"x", create=True, iterations=1), users))
    names = sorted(line.partition(":")[0] for line in Path(path).read_text().splitlines())
    assert (new, names) == ([True] * 16, sorted(users))


# --- somebody else's file ---

ALIEN = [
    ("myhost\n", 1, "this line has no ':' between a user name and a hash"),
    ("# comment\n\nport = 1883\n", 3, "this line has no ':' between a user name and a hash"),
    ("root:x:0:0:root:/root:/bin/sh\n", 1, "this line has more than one ':'"),
    ("root:$6$salt$hash:19000:0:99999:7:::\n", 1, "this line has more than one ':'"),
    ("::1 localhost\n", 1, "the user name is empty"),
    ("services:\n  web:\n", 1, "there is nothing behind the ':' of this line"),
    ("version: 3\n", 1, "there is a blank, and no hash, behind the ':' of this line"),
    ("al:plain\n[Unit]\n", 2, "this line has no ':' between a user name and a hash"),
    ("caf\udce9:x\n", 1, "this line is not valid UTF-8"),
    ("a\0b:x\n", 1, "the user name 'a\\x00b' contains a control character"),
]


@pytest.mark.parametrize(("text", "line", "why"), ALIEN)
def test_a_file_that_is_none_of_passwords_is_left_alone(path: str, text: str, line: int, why: str) -> None:
    before = text.encode("utf-8", "surrogateescape")
    Path(path).write_bytes(before)
    for change in (
        lambda: set_password(path, "bob", b"x", create=True, iterations=1),
        lambda: delete_user(path, "bob"),
    ):
        with pytest.raises(FileError) as caught:
            change()
        assert str(caught.value) == f"{path}:{line}: {why}: this is not a password file, and nothing was changed"
    assert (Path(path).read_bytes(), os.listdir(os.path.dirname(path))) == (before, ["users"])


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "# users of the broker\n", "al:$2b$12$abc\n", "al: $7$1$A$A\n", "ann:plain\nal:$scram-sha-256$x\n"],
)
def test_an_empty_file_and_one_to_be_mended_get_a_user(path: str, text: str) -> None:
    set_password(written(path, text), "bob", b"x", create=True, iterations=1)
    assert Path(path).read_text().startswith(f"{text}bob:$7$1$")


@pytest.mark.parametrize("text", ['{"a":1}\n', "a:b\n", "# comment\nal:plain\n", "key:$HOME\n", "a:$\nb:c:\n"[:4]])
def test_a_file_in_which_nothing_is_hashed_gets_no_new_user(path: str, text: str) -> None:
    written(path, text)
    with pytest.raises(FileError) as caught:
        set_password(path, "bob", b"x", create=True, iterations=1)
    why = "no line of this file has a hash, so it may be none of passwords, and nothing was changed"
    assert str(caught.value) == f"{path}: {why}; if it is one, first set the password of a user who is in it"
    assert Path(path).read_text() == text


def test_plain_passwords_are_mended_one_by_one(path: str) -> None:
    """As mosquitto_passwd -U would."""
    written(path, "al:plain\nbob:plain\n")
    new = [set_password(path, user, b"x", create=True, iterations=1) for user in ("al", "eve", "bob")]
    known = Passwords.read(path)
    assert (new, [known.check(user, b"x") for user in ("al", "bob", "eve")]) == ([False, True, False], [True] * 3)


# --- SCRAM ---


@pytest.mark.parametrize(
    ("method", "start", "size"),
    [("SCRAM-SHA-256", "$scram-sha-256$4096$", 44), ("SCRAM-SHA-512", "$scram-sha-512$4096$", 88)],
)
def test_a_password_for_scram(path: str, method: str, start: str, size: int) -> None:
    set_password(path, "bob", b"one", create=True, iterations=4096, method=method)
    secret, line, end = Path(path).read_text().split("\n")
    assert (secret.startswith("# scram-secret: "), end) == (True, "")
    assert (line.startswith(f"bob:{start}"), len(line)) == (True, 4 + len(start) + 24 + 2 * (1 + size))
    known = Passwords.read(path)
    assert [known.check(user, pw) for user, pw in (("bob", b"one"), ("bob", b"two"), ("al", b"one"))] == [
        True,
        False,
        False,
    ]
    assert [known.recall("bob", b"one"), known.recall("bob", b"two")] == [True, None]
    assert (list(known.methods), known.has_keys(method, "bob"), known.has_keys(method, "al")) == ([method], True, False)


def test_lines_for_scram_are_what_others_compute(path: str) -> None:
    written(
        path, scram_line("ann", b"one") + scram_line("bob", b"two", "512", iterations=3) + pbkdf2_line("al", b"three")
    )
    known = Passwords.read(path)
    pairs = [(user, pw) for user in ("ann", "bob", "al") for pw in (b"one", b"two", b"three", b"")]
    assert [pair for pair in pairs if known.check(*pair)] == [("ann", b"one"), ("bob", b"two"), ("al", b"three")]


@pytest.mark.parametrize(("method", "rounds"), [("SCRAM-SHA-256", 600_000), ("SCRAM-SHA-512", 210_000)])
def test_the_default_price_for_scram(path: str, method: str, rounds: int) -> None:
    set_password(path, "bob", b"one", create=True, method=method)
    assert Path(path).read_text().split("$")[2] == str(rounds)


def test_the_salts_of_unknown_users_stay_when_the_broker_starts_again_and_others_are_added(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def salts() -> list[bytes]:
        monkeypatch.setattr("broker.auth.passwords._SECRET", os.urandom(32))  # as in another process
        known = Passwords.read(path)
        return [known.keys("SCRAM-SHA-256", user).salt for user in ("bob", "eve", "mallory")]

    set_password(path, "bob", b"one", create=True, iterations=4096, method="SCRAM-SHA-256")
    before = salts()
    set_password(path, "al", b"one", create=True, iterations=4096, method="SCRAM-SHA-256")
    set_password(path, "old", b"one", create=True, iterations=1)
    delete_user(path, "old")
    assert (salts(), len(set(before))) == (before, 3)
    assert Path(path).read_text().count("scram-secret") == 1


def test_a_file_without_a_secret_gets_one_with_its_first_user_for_scram(path: str) -> None:
    written(path, "# mine\n" + pbkdf2_line("al", b"x"))
    set_password(path, "bob", b"one", create=True, iterations=4096, method="SCRAM-SHA-256")
    lines = Path(path).read_text().split("\n")
    assert (lines[0].startswith("# scram-secret: "), lines[1]) == (True, "# mine")
    assert Passwords.read(path).check("al", b"x") is True


def test_a_password_for_scram_is_the_same_however_it_is_spelt(path: str) -> None:
    """And one of another kind is not."""
    set_password(path, "bob", "\u2168 J\u00f6rg".encode(), create=True, iterations=4096, method="SCRAM-SHA-256")
    set_password(path, "al", "\u2168 J\u00f6rg".encode(), create=True, iterations=1)
    known = Passwords.read(path)
    spelt = [text.encode() for text in ("\u2168 J\u00f6rg", "IX\u00a0Jo\u0308rg", "IX")] + [b"\xff"]
    assert [known.check("bob", password) for password in spelt] == [True, True, False, False]
    assert [known.check("al", password) for password in spelt] == [True, False, False, False]


@pytest.mark.parametrize(
    ("user", "password", "iterations", "why"),
    [
        ("bob", b"\xff", 4096, "the password cannot be used with SCRAM: it is not valid UTF-8"),
        (
            "bob",
            b"a\x07",
            4096,
            "the password cannot be used with SCRAM: it contains U+0007, which SCRAM does not allow",
        ),
        (
            "bob",
            b"a" * 513,
            4096,
            "the password cannot be used with SCRAM: it has 513 bytes, and SCRAM takes 512 at most",
        ),
        ("bob", b"a", 4095, "4095 iterations for SCRAM-SHA-256: choose a number from 4096 to 10000000"),
        ("Jo\u0308rg", b"a", 4096, "SCRAM writes the user name 'Jo\\u0308rg' as 'J\\xf6rg': choose that"),
        (
            "a\u200e",
            b"a",
            4096,
            "the user name 'a\\u200e' cannot be used with SCRAM: it contains U+200E, which SCRAM does not allow",
        ),
    ],
)
def test_what_scram_cannot_use_is_refused(path: str, user: str, password: bytes, iterations: int, why: str) -> None:
    with pytest.raises(FileError) as caught:
        set_password(path, user, password, create=True, iterations=iterations, method="SCRAM-SHA-256")
    assert (str(caught.value), os.path.exists(path)) == (f"{path}: {why}", False)


def test_a_check_costs_the_same_where_some_have_scram(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        pbkdf2_line("seven", b"x", iterations=50), sha512_line("six", b"x"), scram_line("s256", b"x", iterations=70),
        scram_line("s512", b"x", "512", iterations=60), scram_line("low", b"x", iterations=3),
    )  # fmt: skip
    known = Passwords.read(written(path, "".join(lines)))
    rounds: list[tuple[str, int]] = []
    pbkdf2 = hashlib.pbkdf2_hmac

    def counting(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        rounds.append((name, iterations))
        return pbkdf2(name, password, salt, iterations)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting)
    costs = set()
    for user in ("seven", "six", "s256", "s512", "low", "nobody"):
        rounds.clear()
        assert known.check(user, b"wrong") is False
        sums = [sum(n for name, n in rounds if name == digest) for digest in ("sha512", "sha256")]
        costs.add((len(rounds), tuple(sums)))
    assert costs == {(4, (61, 71))}


# --- with mosquitto ----------------------------------------------------------------------------------------------


def test_files_of_mosquitto_passwd_are_accepted(path: str) -> None:
    for arguments in (["-c", "-b", path, "bob", "one"], ["-H", "sha512", "-b", path, "J\u00f6rg x", "z\u00fc"]):
        subprocess.run(["mosquitto_passwd", *arguments], check=True)
    known = Passwords.read(path)
    pairs = (("bob", "one"), ("bob", "two"), ("J\u00f6rg x", "z\u00fc"), ("J\u00f6rg x", "zu"))
    assert [known.check(user, pw.encode()) for user, pw in pairs] == [True, False, True, False]


def test_mosquitto_accepts_our_files(path: str, start_mosquitto: Callable[[str], str]) -> None:
    users = [("bob", "one"), ("J\u00f6rg x", "z\u00fc:$7$"), ("long", "p" * 1000), ("a/+#", "x")]
    for user, password in users:
        set_password(path, user, password.encode(), create=True, iterations=1)
    set_password(path, "bob", b"two", create=False)  # at the default price
    socket = start_mosquitto(f"allow_anonymous false\npassword_file {path}")

    def publishes(user: str, password: str) -> bool:
        who = ["-u", user, "-P", password]
        done = subprocess.run(["mosquitto_pub", "--unix", socket, *who, "-t", "t", "-m", "m"], capture_output=True)
        return done.returncode == 0

    assert [publishes(*pair) for pair in users] == [False, True, True, True]
    assert (publishes("bob", "two"), publishes("long", "p" * 999)) == (True, False)


def test_mosquitto_passwd_and_we_change_the_same_file(path: str) -> None:
    set_password(path, "ours", b"one", create=True, iterations=7)
    subprocess.run(["mosquitto_passwd", "-b", path, "theirs", "two"], check=True)
    subprocess.run(["mosquitto_passwd", "-b", path, "gone", "three"], check=True)
    delete_user(path, "gone")
    known = Passwords.read(path)
    pairs = (("ours", b"one"), ("theirs", b"two"), ("gone", b"three"))
    assert [known.check(*pair) for pair in pairs] == [True, True, False]


def test_all_bad_lines_are_told(path: str) -> None:
    written(path, "al:plain\n" + pbkdf2_line("bob", b"x") + "eve\nbob:$7$\n")
    with pytest.raises(FileError) as caught:
        Passwords.read(path)
    assert [(error.path, error.line) for error in caught.value.all] == [(path, 1), (path, 3), (path, 4)]
