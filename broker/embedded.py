"""The broker inside of a program: in a thread of its own, with the options as keyword arguments.

Owns: that thread. Must not know: how a broker is built (server).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from . import logs
from .config import loading
from .entrance import StartError
from .logs import EventLog
from .server import Server


class Broker:
    """An MQTT broker that runs in a thread.

        with Broker(port=0) as broker:
            client.connect("127.0.0.1", broker.port)

    Takes the options of the configuration file as keyword arguments, and of the file `config_file` if one is given.
    Unlike the program, it keeps everything in memory unless `data` is given. It logs to the logger "selectmq" as the
    program around it has set that up; `log_level` sets its level, and `log_format` sends it to standard error.
    """

    def __init__(self, *, config_file: str | None = None, **options: object) -> None:
        """Check the options: raises ConfigError (a ValueError) for what is wrong with them."""
        self._log_options = options.keys() & {"log_level", "log_format"}
        self._restore_log: Callable[[], None] | None = None
        if options.get("data") is None and options.get("memory") is None and config_file is None:
            options["memory"] = True
        overrides = loading.from_keywords(options)
        self._config = loading.load(config_file, overrides)
        self._reread = lambda: loading.load(config_file, overrides)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Broker:
        """Bind and serve; when this returns, clients can connect. Raises StartError."""
        if self._thread is not None:
            raise RuntimeError("the broker runs already")
        self._server = Server(self._config, EventLog(), self._reread)
        if self._log_options:
            self._restore_log = logs.restorer()
            if "log_format" in self._log_options:
                logs.configure(self._config.log_level, self._config.log_format)
            else:
                logs.set_level(self._config.log_level)
        self._thread = threading.Thread(target=self._server.run, name="selectmq", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End as on SIGTERM: clients get what is on its way to them, and what must be stored is stored.

        May be called twice.
        """
        if self._server is not None and self._thread is not None:
            self._server.request("stop")
            self._thread.join()
            self._thread = None
            if self._restore_log is not None:
                self._restore_log()
                self._restore_log = None

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
    def _running(self) -> Server:
        if self._server is None or self._thread is None:
            raise RuntimeError("the broker does not run: use it in a `with` block, or call start()")
        return self._server

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


__all__ = ["Broker", "StartError"]
