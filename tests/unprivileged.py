"""Python code in a process that may not listen on a port below 1024, whoever runs the tests.

Owns: how privileges are dropped. Must not know: what the code does.
"""

import subprocess
import sys
from pathlib import Path

from tests.broker_process import environment

_FIRST_FREE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

# Root stays root, and can read what it imports later, but loses this one capability (capabilities(7), capset(2)).
_DROP = """
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
capabilities = (ctypes.c_uint32 * 6)()
assert libc.capget(header, capabilities) == 0
for i in range(3):
    capabilities[i] &= ~(1 << 10)  # CAP_NET_BIND_SERVICE
assert libc.capset(header, capabilities) == 0
"""

# Where a container's kernel lets everybody listen everywhere, there is no port to be refused: then bind itself refuses,
# as it would elsewhere.
_REFUSE = """
def bind(sock, address):
    raise PermissionError(13, "Permission denied")
socket.socket.bind = bind
"""


def run_unprivileged(imports: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` without privileges; what it imports while it still has them is `imports`. It finds PRIVILEGED_PORT."""
    first_free = int(_FIRST_FREE.read_text())
    port = f"PRIVILEGED_PORT = {min(80, first_free - 1) if first_free > 1 else 80}\n"
    script = imports + _DROP + ("" if first_free > 1 else _REFUSE) + port + code
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, env=environment()
    )
