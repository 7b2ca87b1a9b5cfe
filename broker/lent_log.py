"""The log of a program that has brokers inside: one logger for all of them, and it is the program's.

Owns: what running brokers want of it, and that the program gets it back as it was when the last of them has ended, in
whatever order they end. Must not know: what is logged.

Of several brokers at the same time, the one that wants the most lines decides the level, so that nobody misses any; the
last one that named a format decides the form.
"""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from . import logs


class _Wish(NamedTuple):
    level: int | None
    handler: logging.Handler | None


class _Lender:
    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = threading.RLock()  # a signal handler may stop a broker while its thread is in here
        self._wishes: list[_Wish] = []
        self._level = logger.level  # the program's own, as is this
        self._propagate = logger.propagate
        self._wanted: int | None = None  # the level that was set here
        self._handler: logging.Handler | None = None  # that was added here

    def lend(self, level: str | None, kind: str | None) -> Callable[[], None]:
        """Log at this level and in this format ("text", "json") until what is returned is called. None: as it is."""
        wish = _Wish(
            None if level is None else logging.getLevelNamesMapping()[level.upper()],
            None if kind is None else logs.stderr_handler(kind),
        )
        with self._lock:
            if not self._wishes:
                self._level, self._propagate = self._logger.level, self._logger.propagate
            self._wishes.append(wish)
            self._apply()
        return lambda: self._give_back(wish)

    def _give_back(self, wish: _Wish) -> None:
        with self._lock:
            self._wishes = [other for other in self._wishes if other is not wish]
            self._apply()
        if wish.handler is not None:
            wish.handler.close()

    def _apply(self) -> None:
        """Make the logger what all wishes come to."""
        logger = self._logger
        wanted = min((wish.level for wish in self._wishes if wish.level is not None), default=None)
        if wanted is not None:
            logger.setLevel(wanted)
        elif logger.level == self._wanted:  # else the program has set another one meanwhile
            logger.setLevel(self._level)
        self._wanted = wanted
        handler = next((wish.handler for wish in reversed(self._wishes) if wish.handler is not None), None)
        if handler is not self._handler:
            if self._handler is not None:
                logger.removeHandler(self._handler)
            if handler is not None:
                logger.addHandler(handler)
            logger.propagate = handler is None and self._propagate
            self._handler = handler


lend = _Lender(logging.getLogger(logs.NAME)).lend
