"""SCRAM-SHA-256 and SCRAM-SHA-512: the server's side of RFC 5802 and RFC 7677, without channel binding.

Owns: the messages, the keys, SASLprep, and what is told of a user who has no keys. Must not know: AUTH packets, the
password file, who may connect, threads.

The client proves that it knows the password, and the server that it has been told it. Neither hears the password, nor
anything with which somebody else could log in. Only the client pays for the iterations: each step here takes
microseconds.
"""

import base64
import hashlib
import hmac
import re
import secrets
import stringprep
from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import ucd_3_2_0

#: By the name of the method, that of its digest.
DIGESTS = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}

#: What OWASP's Password Storage Cheat Sheet asks for with PBKDF2.
ITERATIONS = {"SCRAM-SHA-256": 600_000, "SCRAM-SHA-512": 210_000}
#: RFC 7677, section 4; some clients refuse to go on with fewer.
LEAST_ITERATIONS = 4096

SALT_BYTES = 16
#: Neither name nor nonce needs as much, and a dialogue holds three messages.
MAX_MESSAGE = 4096
#: Bytes of a name or a password. Preparing one takes a millisecond at most.
MAX_TEXT = 512

_NONCE_BYTES = 18
_HEADER = re.compile(rb"([ny]|p=[A-Za-z0-9.-]*),(?:a=([^,]*))?,")
_PRINTABLE = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")
_NOT_ESCAPED = re.compile(r"=(?!2C|3D)")

#: RFC 4013, section 2.3. Code points that Unicode 3.2 did not have are allowed: so are most emoji.
_PROHIBITED = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
    stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
    stringprep.in_table_c9,
)  # fmt: skip


class Keys(NamedTuple):
    """What the server knows of a user's password. It is enough to check one, and not enough to log in elsewhere."""

    method: str
    iterations: int
    salt: bytes
    stored: bytes
    server: bytes


class First(NamedTuple):
    """The client's first message, read."""

    username: str
    header: bytes  #: the GS2 header
    bare: bytes  #: all behind it
    nonce: bytes


class Final(NamedTuple):
    """The client's second message, read."""

    without_proof: bytes
    proof: bytes


def derive(method: str, password: bytes, salt: bytes, iterations: int) -> Keys:
    """The keys of a prepared password. Blocks for the time of a PBKDF2."""
    digest = DIGESTS[method]
    salted = hashlib.pbkdf2_hmac(digest, password, salt, iterations)
    return Keys(method, iterations, salt, stored_key(digest, salted), hmac.digest(salted, b"Server Key", digest))


def stored_key(digest: str, salted: bytes) -> bytes:
    """What a password is compared by, once it is salted."""
    return hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()


def prepare(text: str) -> str:
    """SASLprep (RFC 4013). Raises ValueError."""
    size = len(text.encode())
    if size > MAX_TEXT:
        raise ValueError(f"it has {size} bytes, and SCRAM takes {MAX_TEXT} at most")
    if text and text.isascii() and text.isprintable():
        return text
    # What follows looks at each character once, however often it is there.
    used = set(text)
    mapped = {ord(c): " " for c in used if stringprep.in_table_c12(c)}
    mapped |= {ord(c): "" for c in used if stringprep.in_table_b1(c)}
    prepared = ucd_3_2_0.normalize("NFKC", text.translate(mapped))
    used = set(prepared)
    prohibited = sorted(c for c in used if any(is_in(c) for is_in in _PROHIBITED))
    if prohibited:
        raise ValueError(f"it contains U+{ord(prohibited[0]):04X}, which SCRAM does not allow")
    if any(stringprep.in_table_d1(c) for c in used):
        if any(stringprep.in_table_d2(c) for c in used):
            raise ValueError("it mixes letters that are written to the left with others, which SCRAM does not allow")
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            raise ValueError("it must begin and end with a letter that is written to the left, as it contains one")
    if not prepared:
        raise ValueError("nothing of it is left for SCRAM")
    return prepared


def prepared_password(password: bytes) -> bytes:
    """Raises ValueError, also for one that is not UTF-8."""
    try:
        return prepare(password.decode()).encode()
    except UnicodeDecodeError:
        raise ValueError("it is not valid UTF-8") from None


def nobody(secret: bytes, method: str, username: str, others: Sequence[Keys]) -> Keys:
    """Keys that no password fits, for a user who has none: the same each time, as long as the secret is the same, with
    the salt and the iterations that one of the `others`, who are sorted and have this method, might have."""
    seed = hmac.digest(secret, f"{method}:{username}".encode(), "sha512")
    like = others[int.from_bytes(seed[:8], "big") * len(others) >> 64]
    size = hashlib.new(DIGESTS[method]).digest_size
    stream = hashlib.shake_256(seed[8:]).digest(len(like.salt) + 2 * size)
    return Keys(method, like.iterations, stream[: -2 * size], stream[-2 * size : -size], stream[-size:])


class Conversation:
    """The messages of one authentication: `first`, `challenge`, `final`, `answer`, in this order. ValueError says what
    is wrong with a message."""

    __slots__ = ("_challenge", "_final", "_first", "_keys", "_nonce")

    def __init__(self, nonce: bytes | None = None) -> None:
        self._nonce = base64.b64encode(secrets.token_bytes(_NONCE_BYTES)) if nonce is None else nonce
        self._first: First
        self._keys: Keys
        self._challenge: bytes
        self._final: Final

    def first(self, message: bytes) -> str:
        """Read the client's first message: the user name."""
        self._first = read_first(message)
        return self._first.username

    def challenge(self, keys: Keys) -> bytes:
        """The server's first message, for the user who has these keys."""
        salt = base64.b64encode(keys.salt)
        self._keys = keys
        self._challenge = b"r=%b%b,s=%b,i=%d" % (self._first.nonce, self._nonce, salt, keys.iterations)
        return self._challenge

    def final(self, message: bytes) -> None:
        """Read the client's second message."""
        size = len(self._keys.stored)
        self._final = read_final(message, self._first.header, self._first.nonce + self._nonce, size)

    def answer(self) -> bytes | None:
        """The server's second message, if the client's proof is right. Thread safe."""
        keys, final = self._keys, self._final
        digest = DIGESTS[keys.method]
        said = b",".join((self._first.bare, self._challenge, final.without_proof))
        signature = hmac.digest(keys.stored, said, digest)
        client_key = bytes(a ^ b for a, b in zip(final.proof, signature, strict=True))
        right = hmac.compare_digest(hashlib.new(digest, client_key).digest(), keys.stored)
        verifier = hmac.digest(keys.server, said, digest)
        return b"v=" + base64.b64encode(verifier) if right else None


def read_first(message: bytes) -> First:
    """See Conversation."""
    _check_size(message)
    header = _HEADER.match(message)
    if header is None:
        raise ValueError("the first message does not begin with n,, or y,,")
    if header[1].startswith(b"p"):
        raise ValueError("channel binding is not supported: the first message must begin with n,,")
    bare = message[header.end() :]
    name, nonce, *_ = *bare.split(b","), b""
    if name.startswith(b"m="):
        raise ValueError("the first message asks for an extension (m=), and none is supported")
    if not name.startswith(b"n=") or not nonce.startswith(b"r="):
        raise ValueError("the first message does not have a user name (n=) and a nonce (r=)")
    if not _PRINTABLE.fullmatch(nonce, 2):
        raise ValueError("the nonce (r=) is empty or not printable")
    username = _name(name[2:])
    if header[2] is not None and _name(header[2]) != username:
        raise ValueError("it wants to act as another user (a=)")
    return First(username, header[0], bare, nonce[2:])


def read_final(message: bytes, header: bytes, nonce: bytes, proof_size: int) -> Final:
    """See Conversation."""
    _check_size(message)
    without_proof, found, proof = message.rpartition(b",p=")
    binding, its_nonce, *_ = *without_proof.split(b","), b""
    if not found or not binding.startswith(b"c=") or not its_nonce.startswith(b"r="):
        raise ValueError("the second message does not have channel binding (c=), nonce (r=) and proof (p=)")
    if binding[2:] != base64.b64encode(header):
        raise ValueError("the second message does not repeat the beginning of the first (c=)")
    if its_nonce[2:] != nonce:
        raise ValueError("the second message has another nonce (r=)")
    try:
        decoded = base64.b64decode(proof, validate=True)
    except ValueError:
        raise ValueError("the proof (p=) is not valid base64") from None
    if len(decoded) != proof_size:
        raise ValueError(f"the proof (p=) has {len(decoded)} bytes, not {proof_size}")
    return Final(without_proof, decoded)


def _check_size(message: bytes) -> None:
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(message)} bytes: at most {MAX_MESSAGE} are read")


def _name(escaped: bytes) -> str:
    try:
        text = escaped.decode()
    except UnicodeDecodeError:
        raise ValueError("a user name is not valid UTF-8") from None
    if _NOT_ESCAPED.search(text):
        raise ValueError("a user name has a '=' that is not written as =3D")
    try:
        return prepare(text.replace("=2C", ",").replace("=3D", "="))
    except ValueError as error:
        raise ValueError(f"a user name is not valid: {error}") from None
