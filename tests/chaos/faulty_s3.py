"""A proxy on loopback before an S3 server that answers 503 in bursts, slowly, in part, or not at all."""

from __future__ import annotations

import http.client
import http.server
import random
import threading
import time
from collections import Counter
from types import TracebackType

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
BURST = 3  # requests that are refused in a row
SLOW_S = 0.5
FAULTS = ("503", "slow", "short body", "lost reply", "reset")
OF_THE_CONNECTION = {"connection", "transfer-encoding", "content-length"}


class FaultyS3:
    """Passes requests on to `server` (host, port) and disturbs a share of them; a context manager.

    A lost reply is one of a request that was carried out: the client never hears of it.
    """

    def __init__(self, server: tuple[str, int], *, share: float, seed: int) -> None:
        self.server, self._share = server, share
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self._refusing = 0
        self.injected: Counter[str] = Counter()
        proxy = self

        class Handler(_Handler):
            faulty = proxy

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True

    def __enter__(self) -> FaultyS3:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """What `AWS_ENDPOINT_URL` must be to go through the proxy."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def choose(self) -> str | None:
        """What happens to the next request."""
        with self._lock:
            if self._refusing:
                self._refusing -= 1
                fault = "503"
            elif self._rng.random() < self._share:
                fault = self._rng.choice(FAULTS)
                self._refusing = BURST - 1 if fault == "503" else 0
            else:
                return None
            self.injected[fault] += 1
            return fault


class _Handler(http.server.BaseHTTPRequestHandler):
    faulty: FaultyS3
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faulty.choose()
        if fault == "503":
            self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        elif fault == "reset":
            self.close_connection = True
        else:
            time.sleep(SLOW_S if fault == "slow" else 0)
            status, headers, answer = self._ask(body)
            if fault == "lost reply":
                self.close_connection = True
            else:
                self._answer(status, headers, answer, cut=fault == "short body")

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(*self.faulty.server, timeout=60)
        try:
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in OF_THE_CONNECTION:
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(body)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        pass
