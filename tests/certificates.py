"""Certificates for tests: authorities, what they issue, and what they revoke. PEM files in the test's directory.

Owns: how certificates are made (by `cryptography`). Must not know: broker.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
#: Long enough that nobody is warned of its end.
LONG = 400 * DAY

# Python 3.13 refuses authorities that do not say what they are for, and certificates that do not say whose they are.
_CA_USAGE = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip

Attributes = list[tuple[x509.ObjectIdentifier, str]]


class Issued(NamedTuple):
    """Files of a certificate and its key."""

    certificate: Path
    key: Path
    serial: int

    @property
    def toml(self) -> str:
        """For a listener."""
        return f'certificate = "{self.certificate}"\nkey = "{self.key}"\n'


class Authority:
    """Issues certificates for servers at 127.0.0.1 and for clients."""

    def __init__(self, directory: Path, name: str = "authority", above: Authority | None = None) -> None:
        """`above`: the authority that answers for this one; None: it is the root."""
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name([(NameOID.COMMON_NAME, name)])
        root = above or self
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(root._name, self._name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + LONG)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_CA_USAGE, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root._key.public_key()), critical=False)
            .sign(root._key, hashes.SHA256())
        )
        self.certificate = directory / f"{name}.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        valid: tuple[datetime.timedelta, datetime.timedelta] = (-DAY, LONG),
        server: bool = False,
        rsa_bits: int = 0,
    ) -> Issued:
        """A certificate with `name` as its common name, or with these attributes of its subject. `valid`: from when to
        when, seen from now; `rsa_bits`: with such a key, which makes handshakes dear."""
        key = rsa.generate_private_key(65_537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        serial = x509.random_serial_number()
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        subject = _name([(NameOID.COMMON_NAME, name)] if attributes is None else attributes)
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), serial)
            .not_valid_before(now + valid[0])
            .not_valid_after(now + valid[1])
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if server:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        found = Issued(self._directory / f"{name}.crt", self._directory / f"{name}.key", serial)
        found.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        found.key.touch(mode=0o600)
        found.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return found

    def trusting(self, client: Issued | None = None) -> ssl.SSLContext:
        """The context of a client that trusts this authority, and shows this certificate."""
        context = ssl.create_default_context(cafile=self.certificate)
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context

    def revoke(self, *revoked: Issued) -> Path:
        """The file of a list that revokes these."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder(self._name, now - DAY, now + DAY)
        for one in revoked:
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(one.serial, now - DAY).build())
        path = self._directory / "revoked.pem"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


def _name(attributes: Attributes) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
