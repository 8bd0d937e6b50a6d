"""The Ray that a job runs on: a cluster it was submitted to, or one it starts for itself."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pipeline.dataflow.machine import allowed_cpus
from pipeline.errors import UnfinishedError, one_line
from pipeline.sources import boundaries

if TYPE_CHECKING:
    import ray

log = logging.getLogger("earshard")
MIN_CPUS = 2  # a CPU must be left for the reads beside an actor
OPEN_HEAD = "EARSHARD_OPEN_HEAD"
ASK_S = 5.0
CONNECT_S = 20.0
MAX_TMPDIR_BYTES = 40  # a socket's path has at most 107, and Ray appends up to 67
PING_S = 30.0  # Ray gives a node up that has been silent for 15 s
# Ray ends a worker that was idle for a second when there are more than CPUs, its own actors counted in: on 2
# cores it then started another for every commit, at 1.6 CPU-s each, and a reader lost its warm decoder.
IDLE_WORKER_MS = 600_000
RAY_BYTES = 700_000_000  # what Ray's own processes and a job's reader take


class ClusterError(UnfinishedError):
    """The cluster cannot run the job; the message is one line."""


@contextmanager
def connected() -> Iterator[None]:
    """A connection to the cluster of `RAY_ADDRESS`, or to a Ray that lives as long as the context.

    A Ray that this process is connected to already is used and left as it is.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    if ray.is_initialized():
        yield
        return
    with _own_sigterm():
        try:
            context = _join() if on_cluster() else _start_patiently()
        except ClusterError:
            raise
        except Exception as error:  # Ray raises its base class, too
            ray.shutdown()
            raise ClusterError(f"Ray did not start or answer: {one_line(error, slice(1))}") from error
    try:
        refuse_open_head(context.dashboard_url)
        yield
    finally:
        ray.shutdown()


def _join() -> Any:
    import ray

    _refuse_dead_address(os.environ["RAY_ADDRESS"])
    settings = boundaries.settings()
    return ray.init(logging_level=logging.ERROR, runtime_env={"env_vars": settings} if settings else None)


def _refuse_dead_address(address: str) -> None:
    """Raise `ClusterError` where nothing listens: Ray itself would ask for minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdecimal():  # e.g. auto
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(f"RAY_ADDRESS={address}: no Ray answers there: {one_line(error)}") from error


def _refuse_long_folder() -> None:
    """Raise `ClusterError` where the paths of Ray's sockets would be longer than the system allows."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > MAX_TMPDIR_BYTES:
        raise ClusterError(
            f"TMPDIR={folder}: too long for the sockets of Ray; give it at most {MAX_TMPDIR_BYTES} bytes"
        )


def _start_patiently() -> Any:
    """Start a Ray, at the second try where a busy machine needs more than the 30 s that Ray gives it."""
    import ray

    _refuse_long_folder()
    try:
        return _start()
    except Exception as error:
        log.warning("Ray did not start (%s); trying once more", one_line(error, slice(1)))
        ray.shutdown()
        return _start()


def _start() -> Any:
    import ray

    with _groups_of_their_own():
        return ray.init(
            address="local",
            num_cpus=max(MIN_CPUS, allowed_cpus().num),
            include_dashboard=False,
            logging_level=logging.ERROR,
            _system_config={"idle_worker_killing_time_threshold_ms": IDLE_WORKER_MS},
        )


@contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """What Ray starts is not in the job's process group: a signal to that is the driver's to answer.

    Ray's processes, which had it too, would end the driver before it can say that it was stopped. They end
    with the driver in any case. Ray 2.60 has no option for it.
    """
    from ray._private import services

    plain = services.ConsolePopen
    services.ConsolePopen = partial(plain, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = plain


def refuse_open_head(dashboard: str | None) -> None:
    """Refuse a head whose `dashboard` (host:port) takes jobs of anyone who reaches it.

    One that listens on loopback alone is fine, and one that wants a token. Raises `ClusterError`.
    """
    if not dashboard or os.environ.get(OPEN_HEAD) == "allow" or _is_loopback(dashboard.rpartition(":")[0]):
        return
    if takes_jobs_of_strangers(dashboard):
        raise ClusterError(
            f"http://{dashboard}: this Ray head accepts jobs without a token; start it with "
            f"RAY_AUTH_MODE=token, or set {OPEN_HEAD}=allow if a network policy keeps strangers away"
        )


def takes_jobs_of_strangers(dashboard: str) -> bool:
    """Whether a head answers who shows no token; false for one that cannot be reached from here."""
    try:
        with urllib.request.urlopen(f"http://{dashboard}/api/jobs/", timeout=ASK_S) as answer:
            return answer.status == HTTPStatus.OK
    except OSError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts, and would end the process at once: give it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def on_cluster() -> bool:
    """True where a job of a cluster runs: its address is in the environment."""
    return os.environ.get("RAY_ADDRESS", "local") != "local"


def is_connected() -> bool:
    """True where this process is connected to a Ray already."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def is_reachable() -> bool:
    """Whether the connected Ray is still there. One that is not keeps who asks it waiting for a minute."""
    import ray

    try:
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=ASK_S):
            return True
    except OSError:
        return False


def refuse_private_paths(paths: Sequence[str]) -> None:
    """Check on every node of a cluster that local paths are there.

    Raises `ClusterError` naming the path and the node that does not see it.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    local = [path for path in paths if "://" not in path]
    if len(nodes) < 2 or not local:
        return
    probe = ray.remote(num_cpus=0)(_missing_paths)
    answers = [probe.options(scheduling_strategy=_on_node(node["NodeID"])).remote(local) for node in nodes]
    for node, missing in zip(nodes, ray.get(answers), strict=True):
        if missing:
            raise ClusterError(
                f"{missing[0]}: node {node['NodeManagerHostname']} does not see it; "
                "on a cluster use shared storage"
            )


def _missing_paths(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]


def this_node() -> str:
    """The id of the node that a task or an actor runs on."""
    import ray

    return ray.get_runtime_context().get_node_id()


def this_actor() -> str:
    """The id of the actor that this is; it stays the same when Ray starts the actor again."""
    import ray

    return ray.get_runtime_context().get_actor_id() or ""


def lost_nodes(node_ids: Collection[str]) -> set[str]:
    """Those of some nodes that are gone. A node that was just lost counts as alive for up to 15 s: ask it."""
    import ray

    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    if len(ray.nodes()) < 2:
        return set()
    ping = ray.remote(num_cpus=0, max_retries=0)(this_node)
    answers = {
        ping.options(scheduling_strategy=_on_node(node_id)).remote(): node_id
        for node_id in alive.intersection(node_ids)
    }
    ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=PING_S) if answers else ([], [])
    return set(node_ids) - {answers[answer] for answer in ready if _came(answer)}


def _came(answer: ray.ObjectRef) -> bool:
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(answer)
    except RayError:
        return False
    return True


def _on_node(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def gpus_held() -> float:
    """The GPUs of the connected Ray that are taken at this moment; 0 when it is gone."""
    import ray
    from ray.exceptions import RaySystemError

    try:
        return ray.cluster_resources().get("GPU", 0.0) - ray.available_resources().get("GPU", 0.0)
    except RaySystemError:
        return 0.0
