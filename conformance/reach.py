"""The first contact: whether there is a broker that can be judged, and if not, what a person can do about it.

Owns: the one line for each way in which that fails. Must not know: capabilities, tests, how a broker is started.
"""

import contextlib
import secrets
import socket
import ssl

from . import packets, program
from .packets import Connack
from .raw import NoAnswer, Raw
from .target import Endpoint, TargetError
from .transcript import RECEIVED, Transcript

#: Where the answer of a web server begins, as a transcript has it.
HTTP = b"HTTP/".hex(" ")


def reach(endpoint: Endpoint, patience: float) -> None:
    """Connects as an ordinary client. TargetError, with what to do, if the broker does not take it."""
    try:
        endpoint.open(patience).close()
    except OSError as error:
        raise TargetError(_no_connection(endpoint, error)) from None
    transcript = Transcript()
    try:
        with contextlib.closing(Raw(endpoint, "probe", transcript, patience)) as raw:
            client_id = f"probe{secrets.token_hex(6)}"
            raw.send(packets.connect(client_id, username=endpoint.username, password=endpoint.password))
            answer = raw.next()
    except NoAnswer as error:
        raise TargetError(_no_answer(endpoint, str(error).removeprefix("probe: "), transcript)) from None
    if not isinstance(answer, Connack):
        raise TargetError(f"{endpoint.url} answers an MQTT 3.1.1 CONNECT with {answer}: is that an MQTT broker?")
    if answer.code in (4, 5):
        given = "does not take these credentials" if endpoint.username is not None else "wants credentials"
        raise TargetError(
            f"{endpoint.url} {given} ({answer}): give --username NAME, and the password when asked "
            "(username and password in a profile)"
        )
    if answer.code:
        raise TargetError(f"{endpoint.url} refuses an ordinary MQTT 3.1.1 CONNECT ({answer}): it cannot be judged")


def _no_connection(endpoint: Endpoint, error: OSError) -> str:
    url = endpoint.url
    if isinstance(error, socket.gaierror):
        return f"there is no host {endpoint.host!r} ({error.strerror}): check how its name is spelt"
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "name its CA with --cafile FILE (ca_file in a profile), or accept any certificate with --insecure"
        return f"{url} has a certificate that is not trusted here ({error.verify_message}): {remedy}"
    if isinstance(error, ssl.SSLError):
        why = (error.reason or str(error)).replace("_", " ").lower()
        return f"{url} does not speak TLS with us ({why}): is that its TLS port? mqtt:// and ws:// go without TLS"
    if isinstance(error, TimeoutError):
        return f"{url} does not answer in time: is something listening there, and is it for {endpoint.scheme}://?"
    if endpoint.websocket and not isinstance(error, ConnectionError):
        path = f"is {endpoint.path!r} the right path?" if endpoint.path else f"name its path, as in {url}/mqtt"
        return f"{url} does not speak MQTT over WebSocket ({error}): {path}"
    why = error.strerror or str(error)
    return f"no connection to {url}: {why}; start a broker there, or name another: {program.name()} HOST:PORT"


def _no_answer(endpoint: Endpoint, why: str, transcript: Transcript) -> str:
    events = transcript.events()
    if any(event.direction == RECEIVED and event.data.startswith(HTTP) for event in events):
        return (
            f"{endpoint.url} is a web server: if it speaks MQTT over WebSocket, name it as "
            f"ws://{endpoint.host}:{endpoint.port}/PATH"
        )
    if endpoint.tls and any("certificate required" in event.text.replace("_", " ").lower() for event in events):
        return f"{endpoint.url} wants a client's certificate: give --cert FILE and --key FILE (cert_file, key_file)"
    return f"{endpoint.url} does not answer an MQTT 3.1.1 CONNECT ({why}): is that an MQTT port?"
