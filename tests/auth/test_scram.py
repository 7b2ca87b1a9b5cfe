"""SCRAM's messages and keys, with the RFCs' own examples and a client that shares no code with what is tested."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.auth import scram
from broker.auth.scram import Conversation, Keys
from tests.scram_client import ScramClient

METHODS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
NONCE = "rOprNGfwEbeRWgbNEkqO"


def keys(password: bytes = b"secret", method: str = "SCRAM-SHA-256", iterations: int = 1) -> Keys:
    return scram.derive(method, password, b"salt", iterations)


def why_not(call: Callable[[], object]) -> str:
    """What its ValueError says."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def test_the_example_of_rfc_7677() -> None:
    """Section 3."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    known = scram.derive("SCRAM-SHA-256", b"pencil", salt, 4096)
    conversation = Conversation(b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert conversation.first(f"n,,n=user,r={NONCE}".encode()) == "user"
    challenge = f"r={NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert conversation.challenge(known) == challenge.encode()
    final = f"c=biws,r={NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    conversation.final(final.encode())
    assert conversation.answer() == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_example_of_rfc_7677_from_the_client_s_side() -> None:
    """So that the other tests ask the right questions."""
    client = ScramClient("SCRAM-SHA-256", "user", "pencil", NONCE)
    assert client.first() == f"n,,n=user,r={NONCE}".encode()
    final = client.final(f"r={NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    assert final.endswith(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("password", "right"), [("secret", True), ("Secret", False), ("", False)])
def test_only_who_knows_the_password_gets_an_answer(method: str, password: str, right: bool) -> None:
    conversation, client = Conversation(), ScramClient(method, "a,b=c", password)
    assert conversation.first(client.first()) == "a,b=c"
    conversation.final(client.final(conversation.challenge(keys(method=method, iterations=3))))
    answer = conversation.answer()
    assert (answer is not None) is right
    if answer is not None:
        client.check(answer)


@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=ann,"])
def test_headers_that_are_taken(header: str) -> None:
    """A client that could bind itself to TLS, and knows that the broker cannot, says y."""
    conversation, client = Conversation(), ScramClient("SCRAM-SHA-256", "ann", "secret", header=header)
    assert conversation.first(client.first()) == "ann"
    conversation.final(client.final(conversation.challenge(keys())))
    assert conversation.answer() is not None


def test_each_conversation_has_a_nonce_of_its_own_so_that_nothing_can_be_sent_again() -> None:
    client = ScramClient("SCRAM-SHA-256", "ann", "secret")
    one, another = Conversation(), Conversation()
    one.first(client.first())
    another.first(client.first())
    final = client.final(one.challenge(keys()))
    another.challenge(keys())
    with pytest.raises(ValueError, match="has another nonce"):
        another.final(final)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "the first message does not begin with n,, or y,,"),
        (b"x,,n=ann,r=abc", "the first message does not begin with n,, or y,,"),
        (b"n,n=ann,r=abc", "the first message does not begin with n,, or y,,"),
        (b"n,b=x,n=ann,r=abc", "the first message does not begin with n,, or y,,"),
        (
            b"p=tls-exporter,,n=ann,r=abc",
            "channel binding is not supported: the first message must begin with n,,",
        ),
        (b"n,a=bob,n=ann,r=abc", "it wants to act as another user (a=)"),
        (b"n,,m=x,n=ann,r=abc", "the first message asks for an extension (m=), and none is supported"),
        (b"n,,", "the first message does not have a user name (n=) and a nonce (r=)"),
        (b"n,,n=ann", "the first message does not have a user name (n=) and a nonce (r=)"),
        (b"n,,r=abc,n=ann", "the first message does not have a user name (n=) and a nonce (r=)"),
        (b"n,,n=ann,r=", "the nonce (r=) is empty or not printable"),
        (b"n,,n=ann,r=a\xc3\xa4", "the nonce (r=) is empty or not printable"),
        (b"n,,n=ann,r=a b", "the nonce (r=) is empty or not printable"),
        (b"n,,n=,r=abc", "a user name is not valid: nothing of it is left for SCRAM"),
        (b"n,,n=a=nn,r=abc", "a user name has a '=' that is not written as =3D"),
        (b"n,,n=a=2c,r=abc", "a user name has a '=' that is not written as =3D"),
        (b"n,,n=\xff,r=abc", "a user name is not valid UTF-8"),
        (b"n,,n=a\0,r=abc", "a user name is not valid: it contains U+0000, which SCRAM does not allow"),
        (b"n,,n=" + b"a" * 513 + b",r=abc", "a user name is not valid: it has 513 bytes, and SCRAM takes 512 at most"),
        (b"n,,n=ann,r=" + b"a" * 4086, "a message of 4097 bytes: at most 4096 are read"),
    ],
)
def test_first_messages_that_are_none(message: bytes, why: str) -> None:
    assert why_not(lambda: Conversation().first(message)) == why


def test_extensions_that_may_be_ignored_are() -> None:
    first = scram.read_first(b"n,,n=ann,r=abc,x=1,y=2")
    assert (first.username, first.nonce, first.bare) == ("ann", b"abc", b"n=ann,r=abc,x=1,y=2")
    final = scram.read_final(b"c=biws,r=abc,x=1,p=AAAA", b"n,,", b"abc", 3)
    assert (final.without_proof, final.proof) == (b"c=biws,r=abc,x=1", bytes(3))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "the second message does not have channel binding (c=), nonce (r=) and proof (p=)"),
        (b"c=biws,r=abc", "the second message does not have channel binding (c=), nonce (r=) and proof (p=)"),
        (b"r=abc,c=biws,p=AAAA", "the second message does not have channel binding (c=), nonce (r=) and proof (p=)"),
        (b"c=biws,p=AAAA", "the second message does not have channel binding (c=), nonce (r=) and proof (p=)"),
        (b"c=eSws,r=abc,p=AAAA", "the second message does not repeat the beginning of the first (c=)"),
        (b"c=,r=abc,p=AAAA", "the second message does not repeat the beginning of the first (c=)"),
        (b"c=biws,r=ab,p=AAAA", "the second message has another nonce (r=)"),
        (b"c=biws,r=abcd,p=AAAA", "the second message has another nonce (r=)"),
        (b"c=biws,r=abc,p=AAA", "the proof (p=) is not valid base64"),
        (b"c=biws,r=abc,p=A\xc3\xa4AA", "the proof (p=) is not valid base64"),
        (b"c=biws,r=abc,p=AAAA,x=1", "the proof (p=) is not valid base64"),
        (b"c=biws,r=abc,p=", "the proof (p=) has 0 bytes, not 3"),
        (b"c=biws,r=abc,p=AAAAAAAA", "the proof (p=) has 6 bytes, not 3"),
        (b"c=biws,r=abc,p=" + b"A" * 4082, "a message of 4097 bytes: at most 4096 are read"),
    ],
)
def test_second_messages_that_are_none(message: bytes, why: str) -> None:
    assert why_not(lambda: scram.read_final(message, b"n,,", b"abc", 3)) == why


#: Pieces of messages, right and wrong.
PIECES = st.sampled_from(
    [b"n", b"y", b"p=", b",", b"a=", b"n=", b"r=", b"c=", b"p=", b"m=", b"biws", b"ann", b"=2C", b"="]
)


@given(st.lists(PIECES | st.binary(max_size=6), max_size=12).map(b"".join), st.booleans())
def test_whatever_comes_is_read_or_refused(message: bytes, first: bool) -> None:
    """By nothing but a ValueError."""
    with contextlib.suppress(ValueError):
        if first:
            read = scram.read_first(message)
            assert (read.header + read.bare, scram.prepare(read.username)) == (message, read.username)
        else:
            scram.read_final(message, b"n,,", b"ann", 3)


# --- SASLprep ---


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013, section 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # a space is a space; accents are put together; what came after Unicode 3.2 stays
        ("a\u00a0b\u3000c", "a b c"),
        ("Jo\u0308rg", "J\u00f6rg"),
        ("\U0001f600", "\U0001f600"),
        ("\u05d0\u05d1", "\u05d0\u05d1"),
        ("a b~", "a b~"),
    ],
)
def test_texts_are_prepared(text: str, prepared: str) -> None:
    assert (scram.prepare(text), scram.prepare(prepared)) == (prepared, prepared)
    assert scram.prepared_password(text.encode()) == prepared.encode()


LEFT = "written to the left"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a\u0007", "it contains U+0007, which SCRAM does not allow"),
        ("a\u200e", "it contains U+200E, which SCRAM does not allow"),
        ("a\ue000", "it contains U+E000, which SCRAM does not allow"),
        ("\u0627\u0031", f"it must begin and end with a letter that is {LEFT}, as it contains one"),
        ("\u0627a\u0627", f"it mixes letters that are {LEFT} with others, which SCRAM does not allow"),
        ("", "nothing of it is left for SCRAM"),
        ("\u00ad", "nothing of it is left for SCRAM"),
        ("\u00e4" * 257, "it has 514 bytes, and SCRAM takes 512 at most"),
    ],
)
def test_texts_that_cannot_be_prepared(text: str, why: str) -> None:
    assert why_not(lambda: scram.prepare(text)) == why


def test_a_password_that_is_no_text_cannot_be_prepared() -> None:
    with pytest.raises(ValueError, match="it is not valid UTF-8"):
        scram.prepared_password(b"a\xff")


def test_no_name_is_prepared_for_long() -> None:
    """Anybody may send one, and it is prepared between other clients' packets."""
    texts = ("".join(chr(0x4E00 + n) for n in range(170)), "\ufdfa" * 170, "a" + "\u0301\u0327" * 127)
    start = time.process_time()
    for text in texts:
        with contextlib.suppress(ValueError):
            scram.prepare(text)
    assert time.process_time() - start < 0.1


# --- users who have no keys ---


def test_an_unknown_user_has_the_same_salt_each_time_and_another_than_others() -> None:
    known = sorted([keys(b"a"), keys(b"b")])
    names = ("eve", "mallory", "Eve")
    first = [scram.nobody(b"secret", "SCRAM-SHA-256", name, known) for name in names]
    again = [scram.nobody(b"secret", "SCRAM-SHA-256", name, known) for name in names]
    assert first == again
    assert len({one.salt for one in first}) == 3
    assert scram.nobody(b"another", "SCRAM-SHA-256", "eve", known).salt != first[0].salt
    other = scram.nobody(b"secret", "SCRAM-SHA-512", "eve", [keys(method="SCRAM-SHA-512")])
    assert other.salt != first[0].salt


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_user_s_keys_look_like_somebody_s(method: str) -> None:
    digest = scram.DIGESTS[method]
    known = sorted(
        scram.derive(method, b"x", b"s" * size, iterations) for size, iterations in ((16, 5), (12, 9), (16, 5), (16, 5))
    )
    made = [scram.nobody(b"secret", method, f"user{n}", known) for n in range(400)]
    shapes = [(one.method, one.iterations, len(one.salt), len(one.stored), len(one.server)) for one in made]
    size = {"sha256": 32, "sha512": 64}[digest]
    assert set(shapes) == {(method, 5, 16, size, size), (method, 9, 12, size, size)}
    assert 40 < shapes.count((method, 9, 12, size, size)) < 160  # as many as there are, more or less
    assert len({one.stored for one in made} | {one.server for one in made}) == 800


def test_one_more_user_changes_little_for_the_unknown() -> None:
    """Else, who asks before and after a user is added could tell."""
    known = sorted(scram.derive("SCRAM-SHA-256", b"x", b"%16d" % n, 5) for n in range(20))
    more = sorted([*known, scram.derive("SCRAM-SHA-256", b"x", b"0123456789abcdef", 5)])
    names = [f"user{n}" for n in range(100)]
    assert [scram.nobody(b"secret", "SCRAM-SHA-256", name, known) for name in names] == [
        scram.nobody(b"secret", "SCRAM-SHA-256", name, more) for name in names
    ]
