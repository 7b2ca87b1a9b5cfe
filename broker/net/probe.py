"""Whether an address could be listened on, found out without listening: nobody can connect meanwhile.

Owns: that look. Must not know: MQTT, configuration.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from ..os_reasons import no_access
from . import unix_socket
from .endpoints import ListenError, resolve
from .listener import NOT_HERE, advice, bound

#: Of the listening Unix sockets of this system (proc(5)); elsewhere than on Linux, the start tells.
_UNIX_SOCKETS = Path("/proc/net/unix")
_LISTENS = 0x10000


class Fault(NamedTuple):
    why: str
    in_use: bool = False  #: somebody listens there, who may be the broker whose configuration this is


def tcp(bind: str, port: int) -> Fault | None:
    """Why it could not be listened on at one of the addresses that `bind` means; None: it could."""
    try:
        endpoints = resolve(bind, port)
    except ListenError as error:
        return Fault(str(error))
    missing = []
    for endpoint in endpoints:
        try:
            bound(endpoint, port).close()
        except OSError as error:
            fault = Fault(f"cannot listen on {endpoint}: {advice(error)}", error.errno == errno.EADDRINUSE)
            if not endpoint.named or error.errno not in NOT_HERE:
                return fault
            missing.append(fault)
    return missing[0] if len(missing) == len(endpoints) else None


def unix(path: str) -> Fault | None:
    """Why a Unix socket could not be made; None: it could."""
    where = f"cannot listen on unix:{path}"
    directory = os.path.dirname(path)
    try:
        if not os.path.isdir(directory):
            raise FileNotFoundError(errno.ENOENT, directory)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise no_access(directory)
        if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
            return Fault(f"{where}: there is a file that is no socket; remove it, or choose another path with --unix")
    except OSError as error:
        return Fault(f"{where}: {unix_socket.advice(error, path)}")
    if _is_listened_on(path):
        return Fault(f"{where}: it is in use; stop the program that listens there, or choose another path", True)
    return None


def _is_listened_on(path: str) -> bool:
    try:
        lines = _UNIX_SOCKETS.read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:
        return False
    rows = [line.split(maxsplit=7) for line in lines]
    return any(len(row) == 8 and row[7] == path and int(row[3], 16) & _LISTENS for row in rows)
