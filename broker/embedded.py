"""The broker inside of a program: in a thread of its own, with the options as keyword arguments.

Owns: that thread, and that nothing of a broker is left in the program when it has ended. Must not know: how a broker
is built (server).

It changes nothing that is the program's: no signal handler, no setting of the interpreter or the process. What it has
for its time (threads, descriptors, a level of the log) it gives back.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from selectors import BaseSelector
from types import TracebackType
from typing import NamedTuple

from .config import loading
from .entrance import StartError
from .lent_log import lend
from .logs import EventLog
from .server import Server

#: Seconds that clients get at `stop` to take what is on its way to them. Less than the program gives them, as the only
#: client is often in the thread that stops the broker, and cannot read meanwhile.
GRACE = 1.0


class _Run(NamedTuple):
    """From a start to the stop."""

    server: Server
    thread: threading.Thread
    process: int  #: a fork has a copy of this object, and no broker
    give_back_log: Callable[[], None]
    stopped: threading.Lock  #: held once somebody has asked for it


class Broker:
    """An MQTT broker that runs in a thread.

        with Broker(port=0) as broker:
            client.connect("127.0.0.1", broker.port)

    Takes the options of the configuration file as keyword arguments, and of the file `config_file` if one is given.
    Unlike the program, it keeps everything in memory unless `data` is given. It logs to the logger "selectmq" as the
    program around it has set that up; `log_level` sets its level, and `log_format` sends it to standard error.
    `selector` is what it waits with, such as `selectors.PollSelector`; without, the best that the system has.
    """

    def __init__(
        self,
        *,
        config_file: str | None = None,
        selector: Callable[[], BaseSelector] | None = None,
        **options: object,
    ) -> None:
        """Check the options: raises ConfigError (a ValueError) for what is wrong with them."""
        self._selector = selector
        log_options = options.keys() & {"log_level", "log_format"}
        if options.get("data") is None and options.get("memory") is None and config_file is None:
            options["memory"] = True
        overrides = loading.from_keywords(options)
        self._config = loading.load(config_file, overrides)
        self._reread = lambda: loading.load(config_file, overrides)
        self._level = self._config.log_level if log_options else None
        self._format = self._config.log_format if "log_format" in log_options else None
        self._run: _Run | None = None

    def start(self) -> Broker:
        """Bind and serve; when this returns, clients can connect. Raises StartError."""
        if self._here is not None:
            if self._here.thread.is_alive():
                raise RuntimeError("the broker runs already")
            self.stop()  # it was stopped on its own thread, where nobody could wait for it
        give_back_log = lend(self._level, self._format)
        try:
            # The level is an argument here, or the program's own: no reload sets it.
            selector = None if self._selector is None else self._selector()
            server = Server(self._config, EventLog(), self._reread, set_level=lambda level: None, selector=selector)
        except BaseException:
            give_back_log()
            raise
        thread = threading.Thread(target=server.run, name="selectmq", daemon=True)
        self._run = _Run(server, thread, os.getpid(), give_back_log, threading.Lock())
        try:
            thread.start()
        except BaseException as error:  # also KeyboardInterrupt, when it may run already
            if thread.ident is None:
                self._run = None
                server.close()
                give_back_log()
            else:
                self.stop()
            if isinstance(error, RuntimeError):
                raise StartError(f"this system has no more threads: {error}") from None
            raise
        atexit.register(self.stop)
        return self

    def stop(self, timeout: float = GRACE) -> None:
        """End as on SIGTERM: clients get what is on its way to them, and what must be stored is stored.

        `timeout`: seconds that clients have for that, if they read; the store has what it needs. May be called twice,
        from any thread and from signal handlers; on the broker's own thread (in a handler of the log) it does not wait
        for the end. A program that ends without it stops the broker then.
        """
        run = self._here
        if run is None:
            return
        if run.stopped.acquire(blocking=False):
            run.server.grace = max(0.0, timeout)
            run.server.request("stop")
        if threading.current_thread() is run.thread:
            return
        run.thread.join()
        run.give_back_log()
        if self._run is run:
            self._run = None
            atexit.unregister(self.stop)

    def reload(self) -> None:
        """Read the configuration file, passwords and access control lists again, as on SIGHUP."""
        self._running.request("reload")

    @property
    def port(self) -> int:
        """The port of the first listener: with `port=0` the one that was free; 0 for a Unix socket."""
        return self.addresses[0][1]

    @property
    def host(self) -> str:
        """The address of the first listener; the path of a Unix socket."""
        return self.addresses[0][0]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listener; for a Unix socket its path, and 0."""
        return self._running.addresses

    @property
    def _here(self) -> _Run | None:
        """The run, if it is one of this process."""
        return self._run if self._run is not None and self._run.process == os.getpid() else None

    @property
    def _running(self) -> Server:
        if self._here is None:
            raise RuntimeError("the broker does not run: use it in a `with` block, or call start()")
        return self._here.server

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


__all__ = ["Broker", "StartError"]
