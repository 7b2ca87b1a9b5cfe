"""The PEM files of authorities: those whom clients' certificates come from, those above the listener's own, and lists
of what was revoked.

Owns: reading them into a context, and what is said of a file that is none. Must not know: the listener's own
certificate and key, and handshakes (that is `tls`).
"""

import os
import re
import ssl

from ..os_reasons import reading, reason

#: Files of a directory that certificates stand in; the second kind is made by `openssl rehash`.
_NAMES = re.compile(r".*\.(pem|crt|cer)|[0-9a-f]{8}\.[0-9]+")


class TlsError(Exception):
    """A file that gives no TLS. `why` says what to do."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why


def read_authorities(context: ssl.SSLContext, client_ca: str, client_crl: str | None) -> None:
    """Let `context` know who issues the certificates of clients, and which are revoked. Raises TlsError."""
    for path in files(client_ca):
        _alone(path)
        context.load_verify_locations(path)
    if client_crl is None:
        return
    data = read_pem(client_crl)
    # OpenSSL would take a certificate in this file for one more authority.
    if b"CERTIFICATE-----" in data or b"-----BEGIN X509 CRL-----" not in data:
        raise TlsError(client_crl, "must hold revocation lists in PEM (-----BEGIN X509 CRL), and nothing else")
    try:
        context.load_verify_locations(client_crl)
    except ssl.SSLError as error:
        raise TlsError(client_crl, f"cannot be used as a revocation list: {ssl_reason(error)}") from None
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def complete_chain(context: ssl.SSLContext, chain: str) -> None:
    """Let `context` know what stands between its certificate and an authority, so that it is sent. Raises TlsError.

    OpenSSL takes what it needs of the certificates that it knows, if the listener's own file has no more than one. It
    must not trust a client because of them: so those that could be the end of a chain, which nobody needs to be sent,
    are left out.
    """
    for path in files(chain):
        known = _alone(path)
        both = zip(known.get_ca_certs(), known.get_ca_certs(binary_form=True), strict=True)
        between = b"".join(der for decoded, der in both if decoded["subject"] != decoded["issuer"])
        if between:
            context.load_verify_locations(cadata=between)


def files(path: str) -> list[str]:
    """The file, or those of a directory, that have certificates in them. Raises TlsError."""
    if not os.path.isdir(path):
        return [path]
    try:
        names = sorted(name for name in os.listdir(path) if _NAMES.fullmatch(name))
    except OSError as error:
        raise TlsError(path, f"it cannot be read: {reason(error)}") from None
    files = [os.path.join(path, name) for name in names]
    found = [file for file in files if b"-----BEGIN CERTIFICATE-----" in read_pem(file)]
    if not found:
        raise TlsError(path, "there is no certificate of an authority (CA) in this directory, in files *.pem or *.crt")
    return found


def _alone(path: str) -> ssl.SSLContext:
    """A context that knows what is in the file, and nothing else. Raises TlsError."""
    read_pem(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsError(path, f"cannot be used as certificates of authorities: {ssl_reason(error)}") from None
    if not context.cert_store_stats()["x509_ca"]:
        raise TlsError(path, "there is no certificate of an authority (CA) in it")
    return context


def ssl_reason(error: ssl.SSLError) -> str:
    return str(error.reason or error.args[-1]).lower().replace("_", " ")


def read_pem(path: str) -> bytes:
    """The whole file. Raises TlsError."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 24)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise TlsError(path, reading(error)) from None
