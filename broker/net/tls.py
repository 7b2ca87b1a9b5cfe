"""TLS: a layer between a transport and its client, and the context that a listener's files give.

Owns: handshakes and records, whom a certificate names, what is said when they fail. Must not know: MQTT, sockets (a
transport beneath it has one).

To its transport a TlsLayer is the client, to its client it is the transport:

    Transport --receive(records)--> TlsLayer --receive(data)--> client
    Transport <--out, flush-------- TlsLayer <--out, flush----- client

It works on `ssl.MemoryBIO`, not on an `ssl.SSLSocket`. So the transport's path stays as it is for who has no TLS, and
its partial writes, limits and pauses hold for records as for anything else. Each block from the network is decrypted at
once and as a whole: nothing is left within OpenSSL that `select` could not see, and no write has to be repeated with
the very same bytes, as SSLSocket would want it. Memory: a block in, and out what the transport counts as unsent.

The longest step of a handshake is mostly the signature of the listener's key. Measured with OpenSSL 3.0 (TLS 1.3,
medians): 0.15 ms with ECDSA P-256, 0.4 ms with RSA 2048, 3.6 ms with RSA 4096. Handshakes does a few of them a turn, so
that a rush of clients does not hold up those who are connected; addresses take turns. Who takes too long is the owner's
to end, by `abort`.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..addresses import origin_of
from ..admission import Place, Places
from .certificates import TlsError, complete_chain, read_authorities, read_pem, ssl_reason
from .loop import Loop
from .transport import Below, Client
from .unsent import Unsent

#: Steps of handshakes in one turn, and seconds after which no more are begun in it.
STEPS = 8
TURN = 0.004
#: Handshakes that an address alone may have begun, without an end of them; in all it is half as many more.
BEGUN = 512
#: Bytes that are encrypted before the system takes them; and in one go, before others have their turn.
AHEAD = 65_536
GO = 1 << 20
#: A record holds no more [RFC 8446, 5.1].
RECORD = 16_384
#: Records that OpenSSL is given at a time. It cannot be stopped in one that holds nothing for us, and a KeyUpdate [RFC
#: 8446, 4.6.3] has 27 bytes and costs it 35 microseconds.
RECORDS = 32
#: The first byte of a client's first record [RFC 8446, 5.1].
_HANDSHAKE = 0x16

# How OpenSSL's names of a subject's parts are written in RFC 4514.
_SHORT = {
    "commonName": "CN", "countryName": "C", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O",
    "organizationalUnitName": "OU", "streetAddress": "street", "domainComponent": "DC", "userId": "UID",
    "surname": "SN", "givenName": "GN",
}  # fmt: skip


class Tls(NamedTuple):
    """What a listener needs to speak TLS."""

    context: ssl.SSLContext
    identify: Callable[[Mapping[str, Any]], str] | None  #: the user name in a client's certificate, "" if none


class Handshakes:
    """Gives each handshake its turn: addresses take turns, so that one that asks for many delays only itself."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.begun = Places(0, BEGUN)  #: of those that have begun
        # By origin, in the order of their turns; no queue is empty.
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._asked = False  # is there to be a turn?

    def add(self, step: Callable[[], None], peer: str) -> None:
        """Call `step` when it is the turn of `peer`, its address and port."""
        self._waiting.setdefault(origin_of(peer), deque()).append(step)
        self._ask()

    def _ask(self) -> None:
        if self._waiting and not self._asked:
            self._asked = True
            self._loop.soon(self._turn)

    def _turn(self) -> None:
        waiting = self._waiting
        end = time.monotonic() + TURN
        try:
            for _ in range(STEPS):
                origin = next(iter(waiting))
                queue = waiting.pop(origin)
                step = queue.popleft()
                if queue:
                    waiting[origin] = queue  # behind all others
                step()  # may ask for another one
                if not waiting or time.monotonic() >= end:
                    break
        finally:
            self._asked = False
            self._ask()


class TlsLayer:
    """The TLS of one connection. `client` is to be set by `established`."""

    __slots__ = (
        "_begun", "_below", "_closed", "_end", "_established", "_failed", "_handshakes", "_held", "_incoming", "_left",
        "_loop", "_now", "_open", "_outgoing", "_place", "_plain", "_ssl", "_stranger", "_tls", "_waiting", "certified",
        "client", "identity", "max_unsent", "out", "peer",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        below: Below,
        tls: Tls,
        handshakes: Handshakes,
        established: Callable[[TlsLayer], None],
        failed: Callable[[TlsLayer, str | None], None],
        stranger: Callable[[bytes], str] = lambda data: "",
    ) -> None:
        """One of `established` and `failed` (with the reason; all is closed then) is called, unless it is closed
        before. The reason is None for one that only looked whether somebody listens. `stranger` says what it is that
        begins with these bytes, "" if it does not know."""
        self._loop = loop
        self._below = below
        self._tls = tls
        self._handshakes = handshakes
        self._established = established
        self._failed = failed
        self._stranger = stranger
        self._incoming = ssl.MemoryBIO()
        self._waiting: bytes | memoryview = b""  # what has come, and OpenSSL has not been given
        self._left = 0  # bytes that it lacks of a record
        self._outgoing = ssl.MemoryBIO()
        self._ssl: ssl.SSLObject  # from its first turn on: it takes some 100 KB, and who waits for that takes little
        self._place: Place | None = None  # from then on, among the handshakes that are not over
        self._plain: Unsent | None = None  # what is not encrypted yet, as the system does not take it
        self.max_unsent = below.max_unsent
        self._begun = False
        self._closed = False
        self._open = False  # is the handshake over?
        self._held = False  # does the client's side want nothing now?
        self._end = ""  # why nothing more comes
        self._now = 0.0
        self.certified = False  #: has the client shown a certificate?
        self.identity: str | None = None  #: whom it names; None: that is not asked for, or there is none
        self.client: Client | None = None
        self.out: list[bytes] = []
        self.peer = below.peer
        below.client = self

    # --- the transport calls ---

    def receive(self, data: bytes, now: float) -> None:
        self._now = now
        if self._closed:
            return
        if self._waiting:
            data = bytes(self._waiting) + data
        if self._open:
            self._waiting = data
            self._deliver()
            return
        if not self._begun and data[0] != _HANDSHAKE:
            self._fail(self._stranger(data) or "the client does not speak TLS, which this listener expects")
            return
        self._begun = True
        self._waiting = data
        self._feed()
        self._below.pause_reading()
        self._handshakes.add(self._shake, self._below.peer)

    def congest(self, waiting: int) -> None:
        if self.client is not None:
            self.client.congest(waiting)

    def relieve(self) -> None:
        if self.client is not None and (self._plain is None or self._plain.waiting <= self.max_unsent // 2):
            self.client.relieve()

    def progress(self, now: float) -> None:
        if self._plain is not None:
            self._go_on()
            self.relieve()
        if self.client is not None:
            self.client.progress(now)

    def lost(self, why: str) -> None:
        if self.client is not None:
            self.client.lost(why)
        elif not self._closed and not self._open:
            self._fail("the client left during the TLS handshake" if self._begun else None)

    # --- the handshake ---

    def _shake(self) -> None:
        if self._closed:
            return
        if self._place is None:
            self._ssl = self._tls.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._place = self._handshakes.begun.arrive(origin_of(self._below.peer), self.abort)
        try:
            self._ssl.do_handshake()
            certificate = self._ssl.getpeercert()
            if certificate:
                self.certified = True
                if self._tls.identify is not None:
                    self.identity = self._tls.identify(certificate)
                # A session that is resumed is not verified again by OpenSSL, and may have been kept for hours.
                if ssl.cert_time_to_seconds(str(certificate["notAfter"])) < time.time():
                    self._fail("client certificate refused: certificate has expired")
                    return
        except ssl.SSLWantReadError:
            self._send_answer()
            if self._feed():
                self._handshakes.add(self._shake, self._below.peer)
            else:
                self._below.resume_reading()
            return
        except (ssl.SSLError, ValueError) as error:  # ValueError: a certificate that cannot be decoded
            self._send_answer()  # the alert
            self._fail(explain(error))
            return
        self._open = True
        self._leave_place()
        self._send_answer()
        self._below.resume_reading()
        self._established(self)
        self._deliver()  # what came behind the handshake

    def _leave_place(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    def abort(self, why: str) -> None:
        """End a handshake."""
        if not self._closed and not self._open:
            self._fail(why)

    def _fail(self, why: str | None) -> None:
        self.close()
        self._failed(self, why)

    # --- records ---

    def _feed(self) -> bool:
        """Give OpenSSL the next records, RECORDS of them at the most. Returns whether there were any."""
        waiting = self._waiting
        size = len(waiting)
        at = self._left
        for _ in range(RECORDS):
            if at + 5 > size:
                break
            at += 5 + (waiting[at + 3] << 8 | waiting[at + 4])
        if at >= size:
            self._left = at - size
            self._waiting = b""
        else:
            self._left = 0
            self._waiting = memoryview(waiting)[at:]
            waiting = waiting[:at]
        self._incoming.write(waiting)
        return bool(waiting)

    @property
    def _more(self) -> bool:
        """Do records wait, or parts of one?"""
        return len(self._waiting) >= 5

    def _deliver(self) -> None:
        """Decrypt what has come, and hand it on; where that takes long, in several turns."""
        read = self._ssl.read
        incoming = self._incoming
        blocks = []
        end = 0.0
        try:
            while True:
                self._feed()
                try:
                    while incoming.pending or self._ssl.pending():
                        block = read(RECORD)
                        if not block:
                            raise ssl.SSLZeroReturnError
                        blocks.append(block)
                except ssl.SSLWantReadError:
                    pass  # the next record is not whole
                if not self._more:
                    break
                now = time.monotonic()
                end = end or now + TURN
                if now >= end:
                    self._below.pause_reading()
                    self._loop.in_turn(self._deliver_more)
                    break
        except ssl.SSLZeroReturnError:
            self._end = "closed by the client without DISCONNECT"
        except ssl.SSLError as error:
            self._end = f"TLS error: {explain(error)}"
        if self._outgoing.pending:
            self._send_answer()
        if blocks and self.client is not None:
            self.client.receive(b"".join(blocks), self._now)
        if self._end:
            self._tell_end()

    def _deliver_more(self) -> None:
        """Go on where others were given a turn before."""
        if self._closed or self._held or self._end:
            return  # `resume_reading` calls again
        self._deliver()
        if not (self._more or self._closed or self._held or self._end):
            self._below.resume_reading()

    def _tell_end(self) -> None:
        """Once all is through that came before: it may hold a DISCONNECT."""
        if not self._held and self.client is not None:
            self.client.lost(self._end)
            self.close(gently=False)

    def _encrypt(self, data: bytes | memoryview) -> None:
        """Make records of it, and hand them to the transport."""
        left = memoryview(data)
        while left:
            left = left[self._ssl.write(left) :]
        self._below.out.append(self._outgoing.read())

    def _go_on(self) -> None:
        """Encrypt what waits, as far as the system takes it: a record belongs to one client, and what waits may be
        shared by many."""
        plain = self._plain
        below = self._below
        done = 0
        while plain is not None and below.unsent < AHEAD and not self._closed:
            if done >= GO:
                self._loop.in_turn(self._go_on_later)
                return
            [first] = plain.first(1)
            part = first[:AHEAD]
            try:
                self._encrypt(part)
            except ssl.SSLError as error:
                self._break_off(error)
                return
            plain.take(len(part))
            done += len(part)
            if not plain.size:
                self._drop_plain()
                plain = None
            below.flush()

    def _go_on_later(self) -> None:
        """Go on where others were given a turn before. If the system takes all of it at once, nothing else will tell
        the client's side that there is room again."""
        if not self._closed:
            self._go_on()
            self.relieve()

    def _drop_plain(self) -> None:
        if self._plain is not None:
            self._plain.drop()
            self._plain = None

    def _break_off(self, error: ssl.SSLError) -> None:
        # As in Transport.flush, the consequences wait for the next turn.
        self._drop_plain()
        why = f"TLS error: {explain(error)}"
        self._loop.soon(lambda: self.lost(why))

    def _send_answer(self) -> None:
        """Send what TLS itself has to say."""
        if self._outgoing.pending:
            self._below.out.append(self._outgoing.read())
            self._below.flush()

    # --- the client's side calls ---

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._below.unsent + (0 if self._plain is None else self._plain.size)

    def flush(self) -> None:
        """Send what is in `out`, as far as the system takes it."""
        out = self.out
        if not out or self._closed:
            return
        if self._plain is None and self._below.unsent < AHEAD:
            data = out[0] if len(out) == 1 else b"".join(out)
            if len(data) <= AHEAD:
                out.clear()
                try:
                    self._encrypt(data)
                except ssl.SSLError as error:
                    self._break_off(error)
                    return
                self._below.flush()
                return
        plain = self._plain
        if plain is None:
            plain = self._plain = Unsent(self.max_unsent, self._loop.backlog)
        plain.add(out)
        out.clear()
        self._go_on()
        too_much = plain.waiting > min(self.max_unsent, self._loop.backlog.part)
        if self._plain is not None and too_much and self.client is not None:
            self.client.congest(plain.waiting)

    def pause_reading(self) -> None:
        self._held = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._held = False
        if self._end:
            self._loop.soon(self._tell_end)
        elif self._more:
            self._loop.soon(self._deliver_more)
        else:
            self._below.resume_reading()

    def close(self, gently: bool = True) -> None:
        """Send what the system takes at once, say so to the client's TLS, and close."""
        if self._closed:
            return
        self._closed = True
        self.client = None
        self._waiting = b""
        self._leave_place()
        if self._open:
            try:
                if self._plain is None:
                    if self.out:
                        self._encrypt(b"".join(self.out))
                    self._ssl.unwrap()
            except ssl.SSLError:
                pass  # it wants to wait for the client's farewell, which we do not; or all is broken already
            if self._outgoing.pending:
                self._below.out.append(self._outgoing.read())
        self.out.clear()
        self._drop_plain()
        self._below.close(gently)


# --- what is said, and whom a certificate names ----------------------------------------------------------------------


def explain(error: Exception) -> str:
    """Why TLS failed, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"client certificate refused: {error.verify_message}"
    if not isinstance(error, ssl.SSLError):
        return f"client certificate refused: {error}"
    reason = str(error.reason or error.args[-1])
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the client has no certificate"
    if reason in ("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "UNKNOWN_PROTOCOL"):
        return "the client speaks no TLS 1.2 or later"
    if reason == "NO_SHARED_CIPHER":
        return "the client and this listener share no cipher"
    words = reason.lower().replace("_", " ")
    _, alert, what = words.partition("alert ")
    return f"the client broke off: {what}" if alert else words


def common_name(certificate: Mapping[str, Any]) -> str:
    """The one common name of a certificate (as `ssl` decodes it); "" if there is none, or more than one."""
    names = [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]
    return names[0] if len(names) == 1 else ""


def subject(certificate: Mapping[str, Any]) -> str:
    """The subject of a certificate as RFC 4514 writes it: "CN=ann,O=Example,C=AT"."""
    return ",".join(
        "+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in part)
        for part in reversed(certificate.get("subject", ()))
    )


def _escaped(value: str) -> str:
    text = "".join(f"\\{c}" if c in ',+"\\<>;' else c for c in value)
    if text[-1:] == " ":
        text = text[:-1] + "\\ "
    return "\\" + text if text[:1] in ("#", " ") else text


#: How a certificate can name a user.
IDENTITIES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"cn": common_name, "subject": subject}


# --- the files -------------------------------------------------------------------------------------------------------


def read_tls(
    certificate: str,
    key: str | None = None,
    client_ca: str | None = None,
    client_crl: str | None = None,
    chain: str | None = None,
    optional: bool = False,
    identity: str | None = None,
) -> Tls:
    """TLS by these PEM files, read anew. Raises TlsError.

    With `client_ca`, clients need a certificate of it, or may have one if `optional`. `identity`: a key of IDENTITIES.
    `chain`: where to find what stands between `certificate` and its authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1  # to resume the one connection that a client has; each more makes a handshake 13 us longer
    has_key = b"PRIVATE KEY-----" in read_pem(certificate)
    if b"-----BEGIN CERTIFICATE-----" not in read_pem(certificate):
        raise TlsError(certificate, "there is no certificate in it: it must be a PEM file with -----BEGIN CERTIFICATE")
    if key is None and not has_key:
        raise TlsError(certificate, "there is no private key in it: name its file with 'key'")
    key = key or certificate
    if b"PRIVATE KEY-----" not in read_pem(key):
        raise TlsError(key, "there is no private key in it: it must be a PEM file with -----BEGIN PRIVATE KEY")
    try:
        context.load_cert_chain(certificate, key, _no_passphrase)
    except _Encrypted:
        raise TlsError(key, "the private key is encrypted: decrypt it (openssl pkey -in ... -out ...)") from None
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise TlsError(
                key, f"this is not the key of the certificate {certificate}: name the one it was made with"
            ) from None
        raise TlsError(certificate, f"cannot be used with the key {key}: {ssl_reason(error)}") from None
    if chain is not None:
        complete_chain(context, chain)
    if client_ca is not None:
        read_authorities(context, client_ca, client_crl)
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return Tls(context, None if identity is None or client_ca is None else IDENTITIES[identity])


class _Encrypted(Exception):
    pass


def _no_passphrase() -> str:
    """Instead of OpenSSL's question on the terminal."""
    raise _Encrypted
