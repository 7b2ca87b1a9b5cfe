"""`$argon2id$` lines, as mosquitto_passwd 2.1 writes them, beside the other kinds and without the extra."""

import base64
import sys
from pathlib import Path

import pytest
from argon2.low_level import Type, hash_secret

from broker.auth import argon2id
from broker.auth.passwords import FileError, Passwords, delete_user, set_password
from broker.cli import main
from tests.password_lines import pbkdf2_line, sha512_line, written

#: The test vector of RFC 9106, section 5.3, has a secret and data, which passwords have not; this is the reference
#: implementation's own (phc-winner-argon2, test.c: t=2, m=2^8, p=1).
REFERENCE = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"


def argon_line(
    user: str, password: bytes, *, memory: int = 64, passes: int = 1, lanes: int = 1, length: int = 64
) -> str:
    encoded = hash_secret(
        password, b"sixteen bytes so", time_cost=passes, memory_cost=memory, parallelism=lanes, hash_len=length,
        type=Type.ID,
    )  # fmt: skip
    return f"{user}:{encoded.decode()}\n"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "users")


def test_the_reference_s_hash_is_right(path: str) -> None:
    known = Passwords.read(written(path, f"bob:{REFERENCE}\n"))
    assert [known.check("bob", password) for password in (b"password", b"passwore", b"")] == [True, False, False]


def test_mosquitto_s_costs(path: str) -> None:
    """m, t, p and the lengths that mosquitto_passwd 2.1 uses (libcommon/password_common.c)."""
    known = Passwords.read(written(path, argon_line("bob", b"one", memory=47_104)))
    assert (known.check("bob", b"one"), known.recall("bob", b"one"), known.check("bob", b"two")) == (True, True, False)


def test_all_kinds_in_one_file(path: str) -> None:
    lines = argon_line("a", b"1") + pbkdf2_line("b", b"2") + sha512_line("c", b"3")
    known = Passwords.read(written(path, lines + argon_line("d", b"4", passes=2, lanes=2, memory=128, length=32)))
    pairs = [(user, password) for user in "abcdx" for password in (b"1", b"2", b"3", b"4")]
    assert [pair for pair in pairs if known.check(*pair)] == [("a", b"1"), ("b", b"2"), ("c", b"3"), ("d", b"4")]


def test_a_check_costs_the_same_for_every_user_and_for_nobody(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = argon_line("a", b"1") + argon_line("b", b"1", passes=2) + pbkdf2_line("c", b"2", iterations=9)
    known = Passwords.read(written(path, lines))
    work: list[int] = []
    real = argon2id.compute

    def counting(password: bytes, salt: bytes, costs: argon2id.Costs) -> bytes:
        work.append(costs.passes)
        return real(password, salt, costs)

    monkeypatch.setattr(argon2id, "compute", counting)
    done = []
    for user in ("a", "b", "c", "nobody"):
        work.clear()
        assert known.check(user, b"wrong") is False
        done.append(work[:])
    assert done == [[1, 2]] * 4


def test_a_file_without_them_computes_none(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Passwords.read(written(path, pbkdf2_line("c", b"2")))
    monkeypatch.delattr(argon2id, "compute")
    assert known.check("c", b"2") is True


FORM = "a $argon2id$ hash is $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH"
SET = "set the password of 'bob' with the passwd command"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("$argon2id$", FORM),
        ("$argon2id$v=18$m=64,t=1,p=1$c29tZXNhbHQ$AAAA", FORM),
        ("$argon2id$v=19$m=2000000,t=1,p=1$c29tZXNhbHQ$AAAA", "m must be from 8 to 1048576, not 2000000"),
        ("$argon2id$v=19$m=8,t=1,p=2$c29tZXNhbHQ$AAAA", "m must be from 16 to 1048576, not 8"),
        ("$argon2id$v=19$m=64,t=65,p=1$c29tZXNhbHQ$AAAA", "t must be from 1 to 64, not 65"),
        ("$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$AAAA", "t must be from 1 to 64, not 0"),
        ("$argon2id$v=19$m=64,t=1,p=0$c29tZXNhbHQ$AAAA", "p must be from 1 to 64, not 0"),
        ("$argon2id$v=19$m=64,t=1,p=1$c2Fs$AAAA", "the salt has 3 bytes: at least 8 are needed"),
        ("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAA", "the hash has 3 bytes: from 16 to 512 are read"),
        ("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$A", "the hash is not valid base64"),
    ],
)  # fmt: skip
def test_a_bad_line(path: str, text: str, why: str) -> None:
    with pytest.raises(FileError) as caught:
        Passwords.read(written(path, f"bob:{text}\n"))
    assert str(caught.value) == f"{path}:1: {why}: {SET}"


def test_without_the_extra_it_is_named(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    written(path, pbkdf2_line("al", b"x") + argon_line("bob", b"one"))
    with pytest.raises(FileError) as caught:
        Passwords.read(path)
    assert str(caught.value).startswith(
        f"{path}:2: a $argon2id$ hash needs an extra: run pip install 'selectmq[argon2]' ("
    )
    assert main(["--check", "--memory", "-p", "0", "--passwords", path]) == 2
    assert "users:2: a $argon2id$ hash needs an extra: run pip install 'selectmq[argon2]'" in capsys.readouterr().err


def test_the_passwd_command_leaves_them_as_they_are(path: str) -> None:
    line = argon_line("bob", b"one")
    set_password(written(path, line), "ann", b"two", create=False, iterations=1)
    assert Path(path).read_text().startswith(f"{line}ann:$7$1$")
    delete_user(path, "ann")
    assert Path(path).read_text() == line


def test_padding_is_not_part_of_it() -> None:
    costs, salt, digest = argon2id.parse(REFERENCE)
    assert (costs, salt) == (argon2id.Costs(19, 256, 2, 1, 32), b"somesalt")
    assert base64.b64encode(digest).decode().rstrip("=") == REFERENCE.rpartition("$")[2]
