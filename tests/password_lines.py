"""Lines of password files, made without the code that is tested."""

import base64
import hashlib
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
