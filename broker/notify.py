"""Tells systemd how the service does (sd_notify), where there is a systemd that wants to know.

Owns: the protocol, which is a datagram to the socket named by $NOTIFY_SOCKET. Must not know: the service.
"""

import contextlib
import os
import socket


def notify(*lines: str) -> bool:
    """Send such lines as "READY=1". False where nobody listens; never an error."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    family = getattr(socket, "AF_UNIX", None)
    if not path or family is None:
        return False
    if path.startswith("@"):
        path = "\0" + path[1:]
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(path)
        sock.sendall("\n".join(lines).encode())
        return True
    return False


def watchdog_interval() -> float | None:
    """Seconds between signs of life that systemd asks for: half of what it tolerates. None if it asks for none."""
    try:
        limit = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
        process = int(os.environ.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    return limit / 2 if process == os.getpid() and limit > 0 else None
