"""A TLS client that sends KeyUpdates [RFC 8446, 4.6.3], which Python's `ssl` cannot: it shakes hands with `ssl`, and
then makes its records itself, of the secret that `ssl` logs.

Owns: those records. Must not know: what they are for.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

_HANDSHAKE, _APPLICATION = b"\x16", b"\x17"
#: The message, with the wish for one from the other side.
_KEY_UPDATE = bytes((24, 0, 0, 1, 1))


class KeyUpdater:
    """What a client has to say behind its handshake in TLS 1.3."""

    def __init__(self, secret: bytes, cipher: str) -> None:
        self._hash = "sha384" if cipher.endswith("SHA384") else "sha256"
        self._make = ChaCha20Poly1305 if "CHACHA20" in cipher else AESGCM
        self._key_size = 16 if "AES_128" in cipher else 32
        self._secret = secret
        self._sequence = 0

    def _derived(self, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label, for what is no longer than a hash [RFC 8446, 7.1]."""
        info = struct.pack(">HB", size, 6 + len(label)) + b"tls13 " + label + b"\0\1"
        return hmac.digest(self._secret, info, self._hash)[:size]

    def _record(self, kind: bytes, content: bytes) -> bytes:
        nonce = int.from_bytes(self._derived(b"iv", 12), "big") ^ self._sequence
        self._sequence += 1
        header = struct.pack(">BHH", 0x17, 0x303, len(content) + 17)
        key = self._make(self._derived(b"key", self._key_size))
        return header + key.encrypt(nonce.to_bytes(12, "big"), content + kind, header)

    def skip(self, records: int) -> None:
        """So many were sent by somebody else."""
        self._sequence += records

    def data(self, content: bytes) -> bytes:
        return self._record(_APPLICATION, content)

    def update(self) -> bytes:
        record = self._record(_HANDSHAKE, _KEY_UPDATE)
        self._secret = self._derived(b"traffic upd", hashlib.new(self._hash).digest_size)
        self._sequence = 0
        return record


def logging_secrets(context: ssl.SSLContext, file: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(file)
    return context


def updater(connection: ssl.SSLSocket | ssl.SSLObject, file: Path) -> KeyUpdater:
    """For a connection that has just shaken hands, with the last secret of that file."""
    cipher = connection.cipher()
    assert cipher is not None
    lines = [line.split() for line in file.read_text().splitlines()]
    secrets = [bytes.fromhex(fields[2]) for fields in lines if fields[0] == "CLIENT_TRAFFIC_SECRET_0"]
    return KeyUpdater(secrets[-1], cipher[0])


def send_raw(connection: ssl.SSLSocket, data: bytes) -> None:
    """Past its TLS."""
    while data:
        data = data[socket.socket.send(connection, data) :]
