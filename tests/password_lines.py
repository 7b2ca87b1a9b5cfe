"""Lines of password files, made without the code that is tested."""

import base64
import hashlib
import hmac
from pathlib import Path


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pbkdf2_line(user: str, password: bytes, *, iterations: int = 1, salt: bytes = b"twelve bytes") -> str:
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, iterations)
    return f"{user}:$7${iterations}${b64(salt)}${b64(digest)}\n"


def sha512_line(user: str, password: bytes, salt: bytes = b"twelve bytes") -> str:
    return f"{user}:$6${b64(salt)}${b64(hashlib.sha512(password + salt).digest())}\n"


def written(path: str, text: str) -> str:
    Path(path).write_bytes(text.encode())
    return path


def scram_line(
    user: str, password: bytes, digest: str = "256", *, iterations: int = 1, salt: bytes = b"16 bytes of salt"
) -> str:
    """`digest`: 256 or 512; the password must not need to be prepared."""
    name = f"sha{digest}"
    salted = hashlib.pbkdf2_hmac(name, password, salt, iterations)
    stored = hashlib.new(name, hmac.digest(salted, b"Client Key", name)).digest()
    server = hmac.digest(salted, b"Server Key", name)
    return f"{user}:$scram-sha-{digest}${iterations}${b64(salt)}${b64(stored)}${b64(server)}\n"
