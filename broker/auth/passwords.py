"""The password file: who may connect, and with which password. Reading, checking and changing it.

Owns: the file format, which is mosquitto's (https://mosquitto.org/man/mosquitto_passwd-1.html), the hashing, and the
memory of pairs that were right. Must not know: CONNECT packets, threads, and when a check is made.

One user a line, `name:$7$iterations$salt$hash` (PBKDF2-HMAC-SHA512, RFC 8018), `name:$6$salt$hash` (SHA-512 of
password and salt) or `name:$argon2id$...` (argon2id.py); the last two are read, never written. Salt and hash are
base64. A line that begins with `#` is a comment.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import NamedTuple

from . import argon2id, errors, file_update
from .errors import FileError as FileError

#: What a new password costs: OWASP's Password Storage Cheat Sheet asks for 210,000 with PBKDF2-HMAC-SHA512.
ITERATIONS = 210_000

#: More than this would hold a worker thread for many seconds with each attempt.
MAX_ITERATIONS = 10_000_000

#: How many pairs of name and password are remembered as right.
REMEMBERED = 4096

#: Both stand behind two length bytes in a CONNECT (MQTT 3.1.1, section 3.1.3); mosquitto_passwd takes no more either.
MAX_BYTES = 65_535

_SALT_BYTES = 12  # mosquitto 2.0 refuses a $7$ line whose salt has any other length
_HASH_BYTES = 64  # of SHA-512

#: Kinds of hashes that other programs write, so that an error can name them. Anything else may be a plain password.
_OTHER_KINDS = re.compile(r"\$(argon2[id]|scrypt|1|2[abxy]?|5|8|y|gy|pbkdf2-sha\d+)\$")


class _Entry(NamedTuple):
    iterations: int  #: 0: the plain SHA-512 of a `$6$` line
    salt: bytes
    hash: bytes
    argon: argon2id.Costs | None = None  #: instead of both


class Passwords:
    """A password file as it was when it was read. To follow a change of the file, read it into a new object.

    What `recall` knows lies in memory as an HMAC under a random key of this object, with the name in it. A digest that
    gets out alone tells nothing. Whoever can read all of this process's memory finds key and digests, and can then try
    passwords as fast as `recall` does; no memory of which a cheap answer is asked can prevent that, and passwords on
    their way through the process can be read there anyway. Where that is too much, `remember=0` turns it off, and each
    CONNECT pays the full price.
    """

    def __init__(self, entries: Mapping[str, _Entry], *, remember: int = REMEMBERED) -> None:
        self._entries = dict(entries)
        # The price of every check, whoever it is for: that of the dearest line.
        self._iterations = max((entry.iterations for entry in entries.values()), default=0) or 1
        self._argons = sorted({entry.argon for entry in entries.values() if entry.argon is not None})
        # An unknown user gets checked as well: against random bytes, which are no password's hash.
        self._nobody = _Entry(self._iterations, secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES))
        self._key = secrets.token_bytes(32)
        self._remember = remember
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def read(cls, path: str, *, remember: int = REMEMBERED) -> "Passwords":
        """Parse the file; `remember` is the number of right pairs to keep for `recall`.

        Raises FileError for whatever cannot be read or understood: no line is ever skipped. An empty file is fine, and
        admits nobody.
        """
        entries: dict[str, _Entry] = {}
        places: dict[str, int] = {}
        faults: list[FileError] = []
        for number, line in enumerate(errors.read_lines(path), 1):
            if line.startswith("#") or not line.strip(errors.BLANKS):
                continue
            try:
                username, entry = _parse(line)
            except ValueError as error:
                faults.append(FileError(path, number, str(error)))
                continue
            if username in entries:
                why = f"user {errors.shown(username)} is on line {places[username]} already: remove one of the two"
                faults.append(FileError(path, number, why))
                continue
            entries[username], places[username] = entry, number
        errors.tell(faults)
        return cls(entries, remember=remember)

    @property
    def users(self) -> Collection[str]:
        """All names in the file."""
        return self._entries.keys()

    def recall(self, username: str, password: bytes) -> bool | None:
        """True if `check` has found this pair right before and it is still remembered; else None: ask `check`.

        Takes microseconds. Thread safe.
        """
        digest = self._digest(username, password)
        with self._lock:
            if digest not in self._remembered:
                return None
            self._remembered.move_to_end(digest)
        return True

    def check(self, username: str, password: bytes) -> bool:
        """Whether this is the user's password. Blocks for the time of a PBKDF2: call it on a worker. Thread safe.

        For a pair that is not remembered, the time depends on the file and on the password's length, not on whether
        the user exists, nor on how that user's password was hashed.
        """
        if self.recall(username, password):
            return True
        if password.endswith(b"\0"):
            return False  # HMAC fills its key up with NULs: any number of them behind the right password would pass
        entry = self._entries.get(username, self._nobody)
        # The same calls with the same costs altogether, for every kind of entry.
        plain = hashlib.sha512(password + entry.salt).digest()
        first = entry.iterations or 1
        slow = hashlib.pbkdf2_hmac("sha512", password, entry.salt, first)
        hashlib.pbkdf2_hmac("sha512", password, entry.salt, self._iterations + 1 - first)
        result = slow if entry.iterations else plain
        for costs in self._argons:
            mine = entry.argon == costs
            digest = argon2id.compute(password, entry.salt if mine else self._nobody.salt, costs)
            result = digest if mine else result
        if not hmac.compare_digest(result, entry.hash):
            return False
        digest = self._digest(username, password)
        with self._lock:
            self._remembered[digest] = None
            if len(self._remembered) > self._remember:
                self._remembered.popitem(last=False)
        return True

    def knows(self, username: str) -> bool:
        """Is there such a user? For the log: who is refused is not told."""
        return username in self._entries

    def agrees(self, other: "Passwords", username: str) -> bool:
        """Whether both files have this user with the same password: after a reload, who may stay?"""
        entry = self._entries.get(username)
        return entry is not None and entry == other._entries.get(username)

    def _digest(self, username: str, password: bytes) -> bytes:
        name = username.encode()
        # With its length in front, no name and password run together into those of somebody else.
        return hmac.digest(self._key, len(name).to_bytes(4, "big") + name + password, "sha256")


def set_password(path: str, user: str, password: bytes, *, create: bool, iterations: int = ITERATIONS) -> bool:
    """Give `user` this password in the file; True if the user is new there.

    The file changes at once or not at all; its other lines, its mode and its owner stay. With `create`, a file that is
    missing is made, for its owner only (0600); one that exists is never emptied. Raises FileError, also for a file that
    is none of passwords.
    """
    for fault in (user_fault(user), password_fault(password)):
        if fault is not None:
            raise FileError(path, None, fault)
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise FileError(path, None, f"{iterations} iterations: choose a number from 1 to {MAX_ITERATIONS}")
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, iterations)
    fields = (b"", b"7", b"%d" % iterations, base64.b64encode(salt), base64.b64encode(digest))
    new = user.encode() + b":" + b"$".join(fields)
    with file_update.changing(path) as real_path:
        lines = _lines(path, real_path, missing_ok=create)
        kept: list[bytes] = []
        known = False
        for line in lines:
            if _name_on(line) != user.encode():
                kept.append(line)
            elif not known:  # a second line of the same user would stop the broker: it goes
                kept.append(new + (b"\r\n" if line.endswith(b"\r\n") else b"\n"))
                known = True
        if not known:
            kept.append(new + b"\n")
        file_update.write(real_path, b"".join(kept))
    return not known


def delete_user(path: str, user: str) -> None:
    """Remove `user` from the file, which changes at once or not at all. Raises FileError."""
    with file_update.changing(path) as real_path:
        lines = _lines(path, real_path, missing_ok=False)
        name = user.encode("utf-8", "surrogateescape")
        kept = [line for line in lines if _name_on(line) != name]
        if len(kept) == len(lines):
            names = [known.decode("utf-8", "replace") for line in lines if (known := _name_on(line)) is not None]
            raise FileError(path, None, f"there is no user {errors.shown(user)}{errors.nearest(user, names)}")
        file_update.write(real_path, b"".join(kept))


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


def password_fault(password: bytes) -> str | None:
    """Why a password cannot be set, and None if it can: for people, one sentence without the password."""
    if not password:
        return "the password is empty: choose one"
    if len(password) > MAX_BYTES:
        return f"the password has {len(password)} bytes: choose one of at most {MAX_BYTES}"
    if b"\0" in password:
        return "the password contains a NUL character, which mosquitto does not accept: choose one without"
    return None


def _parse(line: str) -> tuple[str, _Entry]:
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
    if (kind, len(fields)) not in (("7", 3), ("6", 2)):
        if kind in ("6", "7"):
            raise ValueError(f"a ${kind}$ hash has {3 if kind == '7' else 2} fields, not {len(fields)}: {write}")
        other = _OTHER_KINDS.match(text)
        if other:
            raise ValueError(
                f"a hash of the kind {other[1]} cannot be checked here, only $7$, $6$ and $argon2id$: {write}"
            )
        raise ValueError(f"this is no $7$, $6$ or $argon2id$ hash; if it is a plain password: {write}")
    iterations = 0
    if kind == "7":
        # Neither signs nor spaces nor other scripts' digits, all of which int() would take.
        if not re.fullmatch(r"[0-9]{1,10}", fields[0]) or not 1 <= int(fields[0]) <= MAX_ITERATIONS:
            raise ValueError(f"the iterations must be a number from 1 to {MAX_ITERATIONS}: {write}")
        iterations = int(fields[0])
    salt, digest = _decode(fields[-2], "salt", write), _decode(fields[-1], "hash", write)
    if not salt:
        raise ValueError(f"the salt is empty: {write}")
    if len(digest) != _HASH_BYTES:
        raise ValueError(f"the hash has {len(digest)} bytes, not {_HASH_BYTES}: {write}")
    return username, _Entry(iterations, salt, digest)


def _argon_entry(text: str, write: str) -> _Entry:
    try:
        costs, salt, digest = argon2id.parse(text)
    except argon2id.Missing as error:
        why = f"a $argon2id$ hash needs an extra: run pip install 'selectmq[argon2]' ({error})"
        raise ValueError(f"{why}, or {write}") from None
    except ValueError as error:
        raise ValueError(f"{error}: {write}") from None
    return _Entry(0, salt, digest, costs)


def _decode(field: str, what: str, write: str) -> bytes:
    try:
        return base64.b64decode(field, validate=True)
    except ValueError:
        raise ValueError(f"the {what} is not valid base64: {write}") from None


def _lines(path: str, real_path: str, *, missing_ok: bool) -> list[bytes]:
    """The file's lines with their ends; the last one gets the end that it lacks. Raises FileError, also for a line that
    stands in no password file: to write into somebody's other file would be worse."""
    if missing_ok and not os.path.lexists(real_path):
        return []
    lines = [line + b"\n" for line in errors.read_bytes(real_path).split(b"\n")]
    if lines[-1] == b"\n":
        del lines[-1]
    for number, line in enumerate(lines, 1):
        why = _alien(line)
        if why is not None:
            raise FileError(path, number, f"{why}: this is not a password file, and nothing was changed")
    return lines


def _alien(line: bytes) -> str | None:
    """Why a line can be none of a password file, and None if it can.

    Not as strict as reading: a plain password or another kind of hash must not keep its user from getting a new one.
    """
    if line.startswith(b"#") or not line.strip(errors.BLANKS.encode()):
        return None
    try:
        name, colon, rest = line.decode().partition(":")
    except UnicodeDecodeError:
        return "this line is not valid UTF-8"
    if not colon:
        return "this line has no ':' between a user name and a hash"
    if fault := user_fault(name.strip(errors.BLANKS)):
        return fault.partition(": choose")[0]
    if not rest.strip(errors.BLANKS):
        return "there is nothing behind the ':' of this line"
    if ":" in rest:
        return "this line has more than one ':'"
    if rest[0] in errors.BLANKS and not rest.strip(errors.BLANKS).startswith("$"):
        return "there is a blank, and no hash, behind the ':' of this line"
    return None


def _name_on(line: bytes) -> bytes | None:
    """The name on a line, as bytes because other lines may be broken; None for a comment or a line without a name."""
    name, colon, _ = line.partition(b":")
    return name.strip(errors.BLANKS.encode()) if colon and not line.startswith(b"#") else None
