"""A headless Chromium that shows pages with MQTT.js, which ask the test's HTTP server what to do.

Owns: the HTTP server, the browser's process, its pages as drivers. Must not know: any broker.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from typing import Any
from urllib.parse import urlsplit

from tests import install_clients
from tests.end_to_end.driven import PATIENCE, Driver

FILES = {
    "/page": (install_clients.DRIVERS / "page.html", "text/html"),
    "/mqttjs.js": (install_clients.DRIVERS / "mqttjs.js", "text/javascript"),
    "/mqtt.min.js": (install_clients.NODE_MODULES / "mqtt" / "dist" / "mqtt.min.js", "text/javascript"),
}


class Page(Driver):
    """A page: its questions wait until it asks for them."""

    def __init__(self, browser: Browser, name: str) -> None:
        super().__init__()
        self._browser = browser
        self.name = name
        self.questions: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def send(self, question: dict[str, Any]) -> None:
        self.questions.put(question)

    def kill(self) -> None:
        self._browser.kill()

    def close(self) -> None:
        self._browser.close()


class Browser:
    """Chromium with one page, `first`, that can open others."""

    def __init__(self) -> None:
        install_clients.require()
        program = shutil.which("chromium")
        assert program is not None, "chromium is missing: install it (Debian: sudo apt-get install chromium)"
        self._pages: dict[str, Page] = {}
        self._server = _Server(self._pages)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self._profile = tempfile.mkdtemp(prefix="selectmq-chromium-")
        self.first = self._page("first")
        self._process = subprocess.Popen(
            [
                program, "--headless", f"--user-data-dir={self._profile}",
                "--no-sandbox",  # root has none; it shows our pages only
                "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server", "--disable-quic",
                "--disable-breakpad", "--disable-crash-reporter", "--disable-extensions", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
                # Pages that nobody sees must not be slowed down.
                "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
                "--disable-backgrounding-occluded-windows", "--disable-popup-blocking",
                "--ignore-certificate-errors",  # the tests' own authority
                "--host-resolver-rules=MAP *.test 127.0.0.1",
                self.url(self.first),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "HOME": self._profile, "TMPDIR": self._profile},
        )  # fmt: skip
        try:
            self.version = str(self.first.ask("version"))
        except BaseException:
            self.close()
            raise

    def _page(self, name: str) -> Page:
        self._pages[name] = page = Page(self, name)
        return page

    def url(self, page: Page, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/page?{page.name}"

    def open(self, host: str = "127.0.0.1") -> Page:
        """Another tab, with a page that comes from this host."""
        page = self._page(f"page{len(self._pages)}")
        self.first.ask("open", url=self.url(page, host))
        return page

    def kill(self) -> None:
        """kill -9 of all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.kill()
        for page in self._pages.values():
            page.gone()
            page.questions.put(None)
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()
        shutil.rmtree(self._profile, ignore_errors=True)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pages: dict[str, Page]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = pages


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path, page = self._where()
        if path == "/question" and page is not None:
            self._reply(json.dumps(page.questions.get()).encode(), "application/json")
        elif path in FILES:
            file, kind = FILES[path]
            self._reply(file.read_bytes(), kind)
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        _, page = self._where()
        assert page is not None
        page.answered(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._reply(b"", "text/plain")

    def _where(self) -> tuple[str, Page | None]:
        url = urlsplit(self.path)
        return url.path, self.server.pages.get(url.query)

    def _reply(self, body: bytes, kind: str) -> None:
        with contextlib.suppress(ConnectionError):  # the browser is gone
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
