"""Which heads a job refuses to run on."""

from __future__ import annotations

import http.server
import threading

import pytest

from pipeline import cluster
from pipeline.cluster import ClusterError


@pytest.fixture
def head():
    """A head on loopback whose answer to a request without a token is `head.status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert "Authorization" not in self.headers
            self.send_response(self.server.status if self.path == "/api/jobs/" else 404)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.name = f"127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()


@pytest.fixture
def reachable(monkeypatch):
    """The address on loopback counts as one that others reach."""
    monkeypatch.setattr(cluster, "_is_loopback", lambda host: False)


@pytest.mark.usefixtures("reachable")
def test_a_head_that_takes_jobs_of_strangers_is_refused_with_the_way_out(head, monkeypatch):
    head.status = 200
    with pytest.raises(ClusterError, match=r"runs jobs of anyone .* RAY_AUTH_MODE=token"):
        cluster.refuse_open_head(head.name)
    monkeypatch.setenv(cluster.OPEN_HEAD, "allow")
    cluster.refuse_open_head(head.name)


@pytest.mark.usefixtures("reachable")
def test_a_head_that_wants_a_token_or_is_not_there_is_fine(head):
    head.status = 401
    cluster.refuse_open_head(head.name)
    cluster.refuse_open_head("127.0.0.1:9")
    cluster.refuse_open_head(None)


def test_a_head_on_loopback_is_fine(head):
    head.status = 200
    assert cluster.takes_jobs_of_strangers(head.name)
    cluster.refuse_open_head(head.name)
    cluster.refuse_open_head(f"localhost:{head.server_address[1]}")
