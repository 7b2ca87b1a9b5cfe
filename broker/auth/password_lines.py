"""What a line of a password file says.

Owns: the kinds of hashes, as text. Must not know: which file, how a password is checked.
"""

import base64
import hashlib
import re
from typing import NamedTuple

from . import argon2id, errors, scram

#: More than this would hold a worker thread for many seconds with each attempt.
MAX_ITERATIONS = 10_000_000

#: Both stand behind two length bytes in a CONNECT (MQTT 3.1.1, section 3.1.3); mosquitto_passwd takes no more either.
MAX_BYTES = 65_535

HASH_BYTES = 64  # of SHA-512

#: The beginnings of lines for SCRAM, by method, behind the first `$`.
SCRAM_KINDS = {method: method.lower() for method in scram.DIGESTS}

#: Kinds of hashes that other programs write, so that an error can name them. Anything else may be a plain password.
_OTHER_KINDS = re.compile(r"\$(argon2[id]|scrypt|scram-sha-1|1|2[abxy]?|5|8|y|gy|pbkdf2-sha\d+)\$")


class Entry(NamedTuple):
    iterations: int  #: 0: the plain SHA-512 of a `$6$` line
    salt: bytes
    hash: bytes  #: with SCRAM, the StoredKey
    argon: argon2id.Costs | None = None  #: instead of both
    keys: scram.Keys | None = None

    @property
    def digest(self) -> str:
        """That of its PBKDF2."""
        return "sha512" if self.keys is None else scram.DIGESTS[self.keys.method]


def parse(line: str) -> tuple[str, Entry]:
    """The user of one line. ValueError says what to do; it shows the name, and never what might be a password."""
    name, colon, text = line.partition(":")
    username = name.strip(errors.BLANKS)
    if not colon:
        raise ValueError("there is no ':' between a user name and a hash: write the line with the passwd command")
    fault = user_fault(username)
    if fault is not None:
        raise ValueError(fault)
    write = f"set the password of {errors.shown(username)} with the passwd command"
    text = text.strip(errors.BLANKS)
    if not text:
        raise ValueError(f"the hash is missing: {write}")
    if text.startswith("$argon2id$"):
        return username, _argon_entry(text, write)
    kind, *fields = text.split("$")[1:] if text.startswith("$") else [""]
    if kind in SCRAM_KINDS.values():
        return username, _scram_entry(username, kind, fields, write)
    if (kind, len(fields)) not in (("7", 3), ("6", 2)):
        if kind in ("6", "7"):
            raise ValueError(f"a ${kind}$ hash has {3 if kind == '7' else 2} fields, not {len(fields)}: {write}")
        other = _OTHER_KINDS.match(text)
        if other:
            raise ValueError(
                f"a hash of the kind {other[1]} cannot be checked here, only $7$, $6$, $argon2id$ and SCRAM's: {write}"
            )
        raise ValueError(f"this is no $7$, $6$, $argon2id$ or SCRAM hash; if it is a plain password: {write}")
    iterations = _iterations(fields[0], write) if kind == "7" else 0
    salt = _salt(fields[-2], write)
    return username, Entry(iterations, salt, _digest(fields[-1], "hash", HASH_BYTES, write))


def scram_line(keys: scram.Keys) -> str:
    """What stands behind the ':' for SCRAM."""
    encoded = (base64.b64encode(part).decode() for part in (keys.salt, keys.stored, keys.server))
    return "$".join(("", SCRAM_KINDS[keys.method], str(keys.iterations), *encoded))


def user_fault(user: str) -> str | None:
    """Why `user` cannot stand in a password file, and None if it can: for people, one sentence."""
    name = f"the user name {errors.shown(user)}"
    try:
        size = len(user.encode())
    except UnicodeEncodeError:
        return f"{name} is not valid UTF-8: choose another"
    if not user:
        return "the user name is empty: choose one"
    if size > MAX_BYTES:
        return f"{name} has {size} bytes: choose one of at most {MAX_BYTES}"
    if ":" in user:
        return f"{name} contains ':', which ends a name in this file: choose one without"
    if not errors.is_printable_name(user):
        return f"{name} contains a control character: choose one without"
    if user.startswith("#"):
        return f"{name} begins with '#', as comments do: choose another"
    if user != user.strip(errors.BLANKS):
        return f"{name} begins or ends with a space, which this file does not keep: leave it out"
    return None


def scram_user_fault(user: str) -> str | None:
    """Why a user with this valid name cannot use SCRAM, and None if they can: clients send it prepared."""
    try:
        prepared = scram.prepare(user)
    except ValueError as error:
        return f"the user name {errors.shown(user)} cannot be used with SCRAM: {error}"
    if prepared != user:
        # The two may look the same.
        return f"SCRAM writes the user name {user[:60]!a} as {prepared[:60]!a}: choose that"
    return None


def _scram_entry(username: str, kind: str, fields: list[str], write: str) -> Entry:
    if len(fields) != 4:
        raise ValueError(f"a ${kind}$ hash has 4 fields, not {len(fields)}: {write}")
    fault = scram_user_fault(username)
    if fault is not None:
        raise ValueError(fault)
    method = kind.upper()
    size = hashlib.new(scram.DIGESTS[method]).digest_size
    iterations, salt = _iterations(fields[0], write), _salt(fields[1], write)
    stored, server = (_digest(field, "key", size, write) for field in fields[2:])
    return Entry(iterations, salt, stored, keys=scram.Keys(method, iterations, salt, stored, server))


def _argon_entry(text: str, write: str) -> Entry:
    try:
        costs, salt, digest = argon2id.parse(text)
    except argon2id.Missing as error:
        why = f"a $argon2id$ hash needs an extra: run pip install 'selectmq[argon2]' ({error})"
        raise ValueError(f"{why}, or {write}") from None
    except ValueError as error:
        raise ValueError(f"{error}: {write}") from None
    return Entry(0, salt, digest, costs)


def _iterations(field: str, write: str) -> int:
    # Neither signs nor spaces nor other scripts' digits, all of which int() would take.
    if not re.fullmatch(r"[0-9]{1,10}", field) or not 1 <= int(field) <= MAX_ITERATIONS:
        raise ValueError(f"the iterations must be a number from 1 to {MAX_ITERATIONS}: {write}")
    return int(field)


def _salt(field: str, write: str) -> bytes:
    salt = _decode(field, "salt", write)
    if not salt:
        raise ValueError(f"the salt is empty: {write}")
    return salt


def _digest(field: str, what: str, size: int, write: str) -> bytes:
    digest = _decode(field, what, write)
    if len(digest) != size:
        raise ValueError(f"the {what} has {len(digest)} bytes, not {size}: {write}")
    return digest


def _decode(field: str, what: str, write: str) -> bytes:
    try:
        return base64.b64decode(field, validate=True)
    except ValueError:
        raise ValueError(f"the {what} is not valid base64: {write}") from None
