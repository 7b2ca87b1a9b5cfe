"""The password file: who may connect, and with which password. Reading, checking and changing it.

Owns: the file, which is mosquitto's (https://mosquitto.org/man/mosquitto_passwd-1.html), the hashing, and the memory of
pairs that were right. Must not know: what a line looks like (password_lines), CONNECT packets, threads, and when a
check is made.

One user a line: `name:$7$iterations$salt$hash` (PBKDF2-HMAC-SHA512, RFC 8018), `name:$6$salt$hash` (SHA-512 of
password and salt), `name:$argon2id$...` (argon2id.py), or, which is ours, `name:$scram-sha-256$iterations$salt$
StoredKey$ServerKey` (and `512`; scram.py). `$6$` and `$argon2id$` are read, never written. Salts, hashes and keys are
base64. A line that begins with `#` is a comment; one of them holds the secret by which SCRAM makes up the salts of
unknown users, so that they stay as they are when the broker starts again.
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

from . import argon2id, errors, file_update, scram
from .errors import FileError as FileError
from .password_lines import (
    HASH_BYTES,
    MAX_ITERATIONS,
    SCRAM_KINDS,
    Entry,
    parse,
    scram_line,
)
from .password_lines import MAX_BYTES as MAX_BYTES
from .password_lines import scram_user_fault as scram_user_fault
from .password_lines import user_fault as user_fault

#: What a new password costs: OWASP's Password Storage Cheat Sheet asks for 210,000 with PBKDF2-HMAC-SHA512.
ITERATIONS = 210_000

#: In a file without a secret.
_SECRET = secrets.token_bytes(32)
_SECRET_LINE = re.compile(r"# scram-secret: ([A-Za-z0-9+/]{43}=)")
_SECRET_NOTE = "(keep this line: by it, unknown users get a salt that never changes, as known ones do)"

#: Of a line that can be taken for a user's.
_HASHED = re.compile(rb"[^:]+:[ \t]*\$[A-Za-z0-9-]+\$")

#: How many pairs of name and password are remembered as right.
REMEMBERED = 4096

_SALT_BYTES = 12  # mosquitto 2.0 refuses a $7$ line whose salt has any other length


class Passwords:
    """A password file as it was when it was read. To follow a change of the file, read it into a new object.

    What `recall` knows lies in memory as an HMAC under a random key of this object, with the name in it. A digest that
    gets out alone tells nothing. Whoever can read all of this process's memory finds key and digests, and can then try
    passwords as fast as `recall` does; no memory of which a cheap answer is asked can prevent that, and passwords on
    their way through the process can be read there anyway. Where that is too much, `remember=0` turns it off, and each
    CONNECT pays the full price.
    """

    def __init__(self, entries: Mapping[str, Entry], *, remember: int = REMEMBERED, secret: bytes = _SECRET) -> None:
        self._secret = secret
        self._entries = dict(entries)
        # The price of every check, whoever it is for: that of the dearest line.
        self._iterations = {"sha512": 1}
        for entry in entries.values():
            self._iterations[entry.digest] = max(self._iterations.get(entry.digest, 1), entry.iterations)
        self._argons = sorted({entry.argon for entry in entries.values() if entry.argon is not None})
        # An unknown user gets checked as well: against random bytes, which are no password's hash.
        salt, digest = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(HASH_BYTES)
        self._nobody = Entry(self._iterations["sha512"], salt, digest)
        self._keys: dict[str, list[scram.Keys]] = {}  # by method, sorted; no list is empty
        for keys in sorted(entry.keys for entry in entries.values() if entry.keys is not None):
            self._keys.setdefault(keys.method, []).append(keys)
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
        entries: dict[str, Entry] = {}
        places: dict[str, int] = {}
        faults: list[FileError] = []
        secret = _SECRET
        for number, line in enumerate(errors.read_lines(path), 1):
            if found := _SECRET_LINE.match(line):
                secret = base64.b64decode(found[1])
            if line.startswith("#") or not line.strip(errors.BLANKS):
                continue
            try:
                username, entry = parse(line)
            except ValueError as error:
                faults.append(FileError(path, number, str(error)))
                continue
            if username in entries:
                why = f"user {errors.shown(username)} is on line {places[username]} already: remove one of the two"
                faults.append(FileError(path, number, why))
                continue
            entries[username], places[username] = entry, number
        errors.tell(faults)
        return cls(entries, remember=remember, secret=secret)

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
        result = hashlib.sha512(password + entry.salt).digest()
        prepared = self._prepared(password) if self._keys else password
        text = password if entry.keys is None else prepared
        for digest, most in self._iterations.items():
            mine = entry.digest == digest and entry.iterations > 0
            first = entry.iterations if mine else 1
            slow = hashlib.pbkdf2_hmac(digest, text, entry.salt, first)
            hashlib.pbkdf2_hmac(digest, text, entry.salt, most + 1 - first)
            stored = scram.stored_key(digest, slow)
            if mine:
                result = slow if entry.keys is None else stored
        for costs in self._argons:
            mine = entry.argon == costs
            other = argon2id.compute(password, entry.salt if mine else self._nobody.salt, costs)
            result = other if mine else result
        if not hmac.compare_digest(result, entry.hash):
            return False
        pair = self._digest(username, password)
        with self._lock:
            self._remembered[pair] = None
            if len(self._remembered) > self._remember:
                self._remembered.popitem(last=False)
        return True

    @staticmethod
    def _prepared(password: bytes) -> bytes:
        """As SCRAM wants it. One that cannot be prepared is nobody's: no entry is made of it."""
        try:
            return scram.prepared_password(password)
        except ValueError:
            return password

    @property
    def methods(self) -> Collection[str]:
        """Those of SCRAM by which a user of this file can log in."""
        return self._keys.keys()

    def keys(self, method: str, username: str) -> scram.Keys:
        """What SCRAM needs to know of a user, by one of `methods`: of one who has no such keys, too. By nothing that
        a client sees can they be told from others."""
        nobody = scram.nobody(self._secret, method, username, self._keys[method])
        entry = self._entries.get(username, self._nobody)
        return entry.keys if entry.keys is not None and entry.keys.method == method else nobody

    def has_keys(self, method: str, username: str) -> bool:
        """Does `keys` give the user's own? For the log."""
        entry = self._entries.get(username, self._nobody)
        return entry.keys is not None and entry.keys.method == method

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


def set_password(
    path: str,
    user: str,
    password: bytes,
    *,
    create: bool,
    iterations: int | None = None,
    method: str | None = None,
) -> bool:
    """Give `user` this password in the file, for SCRAM if a `method` is named; True if the user is new there.

    The file changes at once or not at all; its other lines, its mode and its owner stay. With `create`, a file that is
    missing is made, for its owner only (0600); one that exists is never emptied. Raises FileError, also for a file that
    is none of passwords.
    """
    for fault in (user_fault(user), password_fault(password), method and scram_fault(user, password)):
        if fault:
            raise FileError(path, None, fault)
    if iterations is None:
        iterations = scram.ITERATIONS[method] if method else ITERATIONS
    least = scram.LEAST_ITERATIONS if method else 1
    if not least <= iterations <= MAX_ITERATIONS:
        what = f" for {method}" if method else ""
        raise FileError(path, None, f"{iterations} iterations{what}: choose a number from {least} to {MAX_ITERATIONS}")
    new = f"{user}:{_hashed(password, iterations, method)}".encode()
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
            _check_recognisable(path, lines)
            kept.append(new + b"\n")
        if method is not None and not any(_SECRET_LINE.match(line.decode("utf-8", "replace")) for line in lines):
            secret = base64.b64encode(secrets.token_bytes(32)).decode()
            kept.insert(0, f"# scram-secret: {secret} {_SECRET_NOTE}\n".encode())
        file_update.write(real_path, b"".join(kept))
    return not known


def _hashed(password: bytes, iterations: int, method: str | None) -> str:
    """What stands behind the user's name."""
    if method is not None:
        salt = secrets.token_bytes(scram.SALT_BYTES)
        return scram_line(scram.derive(method, scram.prepared_password(password), salt, iterations))
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def scram_method(path: str, user: str) -> str | None:
    """By which method of SCRAM the user can log in, as far as the file can be read."""
    try:
        lines = errors.read_bytes(path).split(b"\n")
    except FileError:
        return None
    for line in lines:
        if _name_on(line) == user.encode():
            text = line.partition(b":")[2].strip(errors.BLANKS.encode())
            for method, kind in SCRAM_KINDS.items():
                if text.startswith(f"${kind}$".encode()):
                    return method
    return None


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


def password_fault(password: bytes) -> str | None:
    """Why a password cannot be set, and None if it can: for people, one sentence without the password."""
    if not password:
        return "the password is empty: choose one"
    if len(password) > MAX_BYTES:
        return f"the password has {len(password)} bytes: choose one of at most {MAX_BYTES}"
    if b"\0" in password:
        return "the password contains a NUL character, which mosquitto does not accept: choose one without"
    return None


def scram_fault(user: str, password: bytes) -> str | None:
    """Why a valid user cannot have this valid password for SCRAM, and None if they can: for people, one sentence."""
    fault = scram_user_fault(user)
    if fault is not None:
        return fault
    try:
        scram.prepared_password(password)
    except ValueError as error:
        return f"the password cannot be used with SCRAM: {error}"
    return None


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


def _check_recognisable(path: str, lines: list[bytes]) -> None:
    """Raise FileError if nothing in the file says that it is one of passwords: many files have lines with a ':'.

    A user who is in it may get a password all the same, which makes it recognisable.
    """
    says = [line for line in lines if not line.startswith(b"#") and line.strip(errors.BLANKS.encode())]
    if says and not any(_HASHED.match(line) for line in says):
        why = "no line of this file has a hash, so it may be none of passwords, and nothing was changed"
        raise FileError(path, None, f"{why}; if it is one, first set the password of a user who is in it")


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
