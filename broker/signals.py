"""What signals ask of the program: noted from its first moment on, and obeyed as soon as there is a broker to ask.

Owns: the handlers, and what came before anybody could obey it. Must not know: who obeys.

By default, most of these signals end a process at once; the first process of a container does not even hear them. So
`hold` comes before anything that takes time, the program's own imports included: a SIGHUP or SIGTERM during the start
is obeyed after the start. Whoever cannot wait sends a second one, which ends the program on the spot.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: Told what is asked for, and by which signal. Is called in a signal handler.
Request = Callable[[str, str], None]

_WANTED = {
    "SIGINT": "stop",
    "SIGTERM": "stop",
    "SIGBREAK": "stop",  # Windows
    "SIGHUP": "reload",
    # Other brokers save their data or show their subscriptions then. Here they are ignored, and the log says so.
    "SIGUSR1": "ignore",
    "SIGUSR2": "ignore",
}
#: What each signal that this system has asks for.
MEANINGS: dict[int, str] = {
    getattr(signal, name): meaning for name, meaning in _WANTED.items() if hasattr(signal, name)
}

_before: dict[int, Any] = {}  # the handlers that `hold` has replaced
_came: list[int] = []  # before anybody could obey
_obey: Request | None = None


def hold() -> None:
    """Note what comes from now on. May be called twice. Signals belong to the main thread: elsewhere, this does
    nothing."""
    with contextlib.suppress(ValueError):  # another thread than the main one
        for number in MEANINGS.keys() - _before.keys():
            _before[number] = signal.signal(number, _heard)


def release() -> None:
    """Undo `hold`, and let what came have the effect that it has on any program. For commands that do not serve."""
    _restore()
    came = _came[:]
    _came.clear()
    for number in came:
        signal.raise_signal(number)


@contextlib.contextmanager
def obeyed(request: Request) -> Iterator[None]:
    """Ask `request` for what signals mean, as long as this lasts; first for what has come since `hold`."""
    global _obey
    held = bool(_before)
    hold()
    _obey = request
    came = _came[:]
    _came.clear()
    for number in came:
        _heard(number, None)
    try:
        yield
    finally:
        if held:  # the program is over: what comes now is too late to change how it ends
            for number in _before:
                signal.signal(number, signal.SIG_IGN)
        else:
            _restore()
        _obey = None


def _heard(number: int, frame: FrameType | None) -> None:
    meaning = MEANINGS[number]
    if _obey is not None:
        _obey(meaning, signal.Signals(number).name)
    elif meaning == "stop" and any(MEANINGS[earlier] == "stop" for earlier in _came):
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        os._exit(128 + number)  # the first process of a container does not die of a signal
    else:
        _came.append(number)


def _restore() -> None:
    for number, handler in _before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _before.clear()
