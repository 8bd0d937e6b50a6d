"""Calls that know nothing of each other, as tasks of Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.dataflow import cluster


def run_each(call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """What `call` returns for each of the arguments, in the order in which they end.

    Joins the cluster of `RAY_ADDRESS`, or starts a Ray of its own. Raises `ClusterError`, and what a call
    raises.
    """
    import ray

    with cluster.connected():
        task = ray.remote(call)
        pending = [task.remote(*given) for given in arguments]
        while pending:
            done, pending = ray.wait(pending)
            yield from ray.get(done)
