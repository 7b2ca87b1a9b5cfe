"""The client's side of SCRAM (RFC 5802, RFC 7677), made without the code that is tested.

    client = ScramClient("SCRAM-SHA-256", "ann", "secret")
    first = client.first()                  # the Authentication Data of a CONNECT, or of an AUTH that begins anew
    final = client.final(server_first)      # that of the AUTH that answers the broker's first
    client.check(server_final)              # the broker's last word, in CONNACK or AUTH

Names and passwords are taken as they are: prepare them, where that matters.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets


class ScramClient:
    """One authentication. What it sends can be changed before it is sent, by the attributes."""

    def __init__(
        self, method: str, username: str, password: str, nonce: str | None = None, header: str = "n,,"
    ) -> None:
        self.digest = method.removeprefix("SCRAM-").replace("-", "").lower()
        self.username = username
        self.password = password
        self.nonce = secrets.token_hex(12) if nonce is None else nonce
        self.header = header
        self.server_signature = b""

    def first(self) -> bytes:
        return f"{self.header}{self._bare()}".encode()

    def final(self, challenge: bytes) -> bytes:
        told = dict(part.split("=", 1) for part in challenge.decode().split(","))
        assert told["r"].startswith(self.nonce)
        assert len(told["r"]) > len(self.nonce)
        salted = self._hi(base64.b64decode(told["s"]), int(told["i"]))
        client_key = self._hmac(salted, b"Client Key")
        stored_key = hashlib.new(self.digest, client_key).digest()
        without_proof = f"c={base64.b64encode(self.header.encode()).decode()},r={told['r']}"
        said = f"{self._bare()},{challenge.decode()},{without_proof}".encode()
        proof = bytes(a ^ b for a, b in zip(client_key, self._hmac(stored_key, said), strict=True))
        self.server_signature = self._hmac(self._hmac(salted, b"Server Key"), said)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check(self, answer: bytes) -> None:
        """The server knows the password, too."""
        assert answer == b"v=" + base64.b64encode(self.server_signature)

    def _bare(self) -> str:
        return f"n={self.username.replace('=', '=3D').replace(',', '=2C')},r={self.nonce}"

    def _hmac(self, key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, self.digest).digest()

    def _hi(self, salt: bytes, iterations: int) -> bytes:
        """PBKDF2 as RFC 5802 spells it out, if that is quick; else by the library."""
        if iterations > 5000:
            return hashlib.pbkdf2_hmac(self.digest, self.password.encode(), salt, iterations)
        last = self._hmac(self.password.encode(), salt + b"\0\0\0\1")
        result = int.from_bytes(last, "big")
        for _ in range(iterations - 1):
            last = self._hmac(self.password.encode(), last)
            result ^= int.from_bytes(last, "big")
        return result.to_bytes(len(last), "big")
