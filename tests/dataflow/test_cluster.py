"""Which heads a job refuses to run on."""

from __future__ import annotations

import http.server
import re
import socket
import threading
from dataclasses import replace

import pytest

from pipeline.config import OptionError, RunOptions
from pipeline.dataflow import cluster
from pipeline.dataflow.cluster import ClusterError
from pipeline.dataflow.workers import COMMIT_CPUS, READ_CPUS, choose_workers


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
    with pytest.raises(ClusterError, match=r"accepts jobs without a token.* RAY_AUTH_MODE=token"):
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


class FakeAnswer:
    """What a task on a node came to: a value, or the death of the node."""

    def __init__(self, value=None, error=None):
        self.value, self.error = value, error


@pytest.fixture
def two_nodes(monkeypatch):
    """A Ray of two nodes, `a` and `b`, that both count as alive; `two_nodes[name]` is what runs there."""
    import ray
    from ray.exceptions import NodeDiedError

    sees = {"a": lambda *_arguments: "here", "b": lambda *_arguments: "here"}

    class Task:
        def __init__(self, _function):
            self._node = None

        def options(self, *, scheduling_strategy):
            self._node = scheduling_strategy.node_id
            return self

        def remote(self, *arguments):
            try:
                return FakeAnswer(sees[self._node](*arguments))
            except NodeDiedError as error:
                return FakeAnswer(error=error)

    def get(answers):
        found = [answer.value for answer in (answers if isinstance(answers, list) else [answers])]
        errors = [answer.error for answer in (answers if isinstance(answers, list) else [answers])]
        if any(errors):
            raise next(filter(None, errors))
        return found if isinstance(answers, list) else found[0]

    nodes = [{"NodeID": name, "Alive": True, "NodeManagerHostname": f"host-{name}"} for name in "ab"]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "remote", lambda **_options: Task)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda answers, **_options: (answers, []))
    monkeypatch.setattr(cluster, "_on_node", lambda name: type("Affinity", (), {"node_id": name}))
    return sees


def test_what_only_one_node_sees_is_refused_by_name(two_nodes):
    two_nodes["a"], two_nodes["b"] = (lambda _paths: []), (lambda paths: [p for p in paths if p == "/model"])
    cluster.refuse_private_paths(["/in", "s3://bucket/out"])
    with pytest.raises(ClusterError, match=r"/model: node host-b does not see it; on a cluster use shared"):
        cluster.refuse_private_paths(["/in", "s3://bucket/out", "/model"])


def test_a_node_that_only_seems_alive_is_lost(two_nodes):
    from ray.exceptions import NodeDiedError

    def dies(*_arguments):
        raise NodeDiedError("gone")

    assert cluster.lost_nodes({"a", "b"}) == set()
    two_nodes["b"] = dies
    assert cluster.lost_nodes({"a", "b", "long-gone"}) == {"b", "long-gone"}


def test_only_what_a_living_node_lost_counts_as_an_attempt(tmp_path, monkeypatch):
    from pipeline.driver import rounds
    from pipeline.output import attempts
    from pipeline.output.local_store import LocalStore

    store = LocalStore.open(str(tmp_path))
    for unit, node in (("shard-000000", "spot"), ("shard-000001", "alive")):
        with pytest.raises(KeyboardInterrupt), attempts.marked(store, unit, "run-1", node):
            raise KeyboardInterrupt
    monkeypatch.setattr(cluster, "lost_nodes", lambda nodes: {"spot"} & nodes)
    assert rounds.lost_units(store, "run-1") == {"shard-000001": ""}
    assert attempts.count_marks(store) == {"shard-000001": 1}
    assert attempts.count_excused(store) == 1


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**options):
        raise Exception("The current node timed out during startup.\nThis could happen because …")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(ClusterError, match=r"^Ray did not start or answer: The current node timed [^\n]*$"),
        cluster.connected(),
    ):
        pass


def test_an_address_where_no_ray_answers_is_one_line_that_names_it(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    for written in (address, f"ray://{address}"):
        monkeypatch.setenv("RAY_ADDRESS", written)
        wanted = f"^RAY_ADDRESS={re.escape(written)}: no Ray answers there: Connection refused$"
        with pytest.raises(ClusterError, match=wanted), cluster.connected():
            pass


def test_a_folder_too_long_for_the_sockets_of_ray_is_one_line_that_names_the_variable(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: "/tmp/" + "x" * 36)
    wanted = r"^TMPDIR=/tmp/x+: too long .* at most 40 bytes$"
    with pytest.raises(ClusterError, match=wanted), cluster.connected():
        pass


def test_a_cluster_of_one_cpu_says_what_a_job_needs(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    with pytest.raises(ClusterError, match=r"has 1 CPU; .* needs 2: one reads"):
        choose_workers(RunOptions(gpus_per_actor=0.0), 1)


@pytest.mark.parametrize(("cpus", "actors"), [(2, 1), (2, 2), (4, 3), (5, 8), (16, 30)])
def test_on_cpus_a_shard_is_committed_while_another_is_read(cpus, actors, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": float(cpus)}}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus)})
    run = RunOptions(batch_size="auto", min_actors=actors, max_actors=actors, gpus_per_actor=0.0)
    workers = choose_workers(run, 100)
    assert 0 < workers.actor_cpus <= 0.5
    as_ray_counts = round(workers.actor_cpus * 10_000) / 10_000
    assert actors * as_ray_counts + READ_CPUS + COMMIT_CPUS <= cpus
    with pytest.raises(OptionError, match=f"--actors {2 * cpus}: must be at most {2 * (cpus - 1)}"):
        choose_workers(replace(run, max_actors=2 * cpus), 100)
