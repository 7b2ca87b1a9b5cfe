"""Until when certificates and revocation lists are valid, as `cryptography` wrote them."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509

from broker.net.validity import validities
from tests.certificates import DAY, Authority


def test_certificates_and_lists(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("one", valid=(-3 * DAY, 400 * DAY))
    far = authority.issue("far", valid=(-DAY, 36_500 * DAY))  # beyond 2049: another kind of time
    revoked = authority.revoke(issued)
    pem = b"".join(path.read_bytes() for path in (issued.certificate, far.certificate, revoked))
    certificates = [x509.load_pem_x509_certificate(one.certificate.read_bytes()) for one in (issued, far)]
    crl = x509.load_pem_x509_crl(revoked.read_bytes())
    expected = [(one.not_valid_before_utc, one.not_valid_after_utc) for one in certificates]
    assert [tuple(one) for one in validities(b"text before\n" + pem)] == [
        *expected, (crl.last_update_utc, crl.next_update_utc),
    ]  # fmt: skip


def test_the_project_s_own_certificate() -> None:
    (validity,) = validities((Path(__file__).parents[1] / "conformance" / "localhost.pem").read_bytes())
    assert validity.begin < datetime.datetime.now(datetime.UTC) < validity.end


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b"-----BEGIN X509 CRL-----\nMAIwAA==\n-----END X509 CRL-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIID",
    ],
)
def test_what_is_no_certificate_is_left_out(pem: bytes) -> None:
    assert list(validities(pem)) == []
