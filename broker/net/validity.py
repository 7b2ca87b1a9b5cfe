"""Until when certificates and revocation lists are valid: the standard library reads no file for that.

Owns: as much of DER (X.690) and of RFC 5280 as it takes. Must not know: what is made of it.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERAL_TIME = 0x30, 0x17, 0x18


class Validity(NamedTuple):
    begin: datetime
    end: datetime


def validities(pem: bytes) -> Iterator[Validity]:
    """Of each certificate and each revocation list in the text; what cannot be read is left out."""
    for match in _PEM.finditer(pem):
        try:
            times = list(_times(b64decode(match[2]), certificate=match[1] == b"CERTIFICATE"))
            yield Validity(times[0], times[1])
        except (ValueError, IndexError):
            continue  # OpenSSL has the word on what is no certificate


def _times(der: bytes, *, certificate: bool) -> Iterator[datetime]:
    """The two times: notBefore and notAfter, or thisUpdate and nextUpdate (RFC 5280, 4.1.2.5 and 5.1.2)."""
    (_, signed), *_ = _elements(der)
    (_, body), *_ = _elements(signed)
    parts = list(_elements(body))
    if certificate:
        # Validity is the first SEQUENCE that begins with a time: behind version, serial number, algorithm and issuer.
        parts = next(
            inner
            for tag, value in parts
            if tag == _SEQUENCE and (inner := list(_elements(value))) and _is_time(inner[0])
        )
    for tag, value in parts:
        if tag in (_UTC_TIME, _GENERAL_TIME):
            text = value.decode("ascii")
            form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
            yield datetime.strptime(text, form).replace(tzinfo=UTC)


def _is_time(element: tuple[int, bytes]) -> bool:
    return element[0] in (_UTC_TIME, _GENERAL_TIME)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and value of each element, one behind the other. Raises ValueError, IndexError."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[at : at + count])
            at += count
        if at + size > len(data):
            raise ValueError("an element is cut off")
        yield tag, data[at : at + size]
        at += size
