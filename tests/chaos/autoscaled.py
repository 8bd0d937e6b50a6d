"""A job for GPUs on a cluster that has none: its autoscaler brings two nodes, and takes them away again.

    python -m tests.chaos.autoscaled FOLDER

The nodes are Ray's fake ones, processes of this machine that say they have a GPU. The last line is JSON: the
nodes with a GPU before, during (at most) and after the job, the status of the job and the devices in its
metrics.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.ray_faults import DRIVER, RUN_S, devices
from tests.chaos.small_cluster import OBJECT_STORE_BYTES, free_port, kill
from tests.chaos.undisturbed import SHARD_HOURS, make_recordings

NUM_RECORDINGS = 32
IDLE_MINUTES = 0.1
START_S = 300.0
GPU_NODE = {"CPU": 2, "GPU": 1, "object_store_memory": OBJECT_STORE_BYTES}


def autoscaling(address: str) -> dict[str, object]:
    """The configuration of an autoscaler that may bring two nodes with a GPU."""
    head = {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}
    gpu = {"resources": GPU_NODE, "node_config": {}, "min_workers": 0, "max_workers": 2}
    provider = {
        **{"type": "fake_multinode", "use_node_id_as_ip": True, "gcs_address": address},
        **{"disable_node_updaters": True, "disable_launch_config_check": True},
    }
    nothing = ("head_setup_commands", "worker_setup_commands", "setup_commands", "initialization_commands")
    nothing += ("head_start_ray_commands", "worker_start_ray_commands")
    return {
        "cluster_name": "fake", "max_workers": 2, "idle_timeout_minutes": IDLE_MINUTES,
        "upscaling_speed": 1.0, "provider": provider, "auth": {}, "docker": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": head, "gpu": gpu}, "file_mounts": {},
        "cluster_synced_files": [], **{name: [] for name in nothing},
    }  # fmt: skip


def start_head(folder: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a head without GPUs and its autoscaler. Returns it and its address."""
    import ray

    port = free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    config = Path(folder) / "autoscaling.json"
    config.write_text(json.dumps(autoscaling(address)))
    environment = os.environ | {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    environment |= {"RAY_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=1", "--num-gpus=0", "--include-dashboard=false", f"--temp-dir={folder}"]
    command += [f"--autoscaling-config={config}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, **quiet), address


def connect(address: str) -> None:
    """Connect to a head that is starting."""
    import ray

    deadline = time.monotonic() + START_S
    while True:
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
            return
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def gpu_nodes() -> int:
    """How many nodes have a GPU now."""
    import ray

    return sum(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())


def run(scratch: Path, folder: str) -> dict[str, object]:
    """Carry the job out and watch the nodes."""
    source, output = make_recordings(scratch / "in", NUM_RECORDINGS), str(scratch / "out")
    head, address = start_head(folder)
    try:
        connect(address)
        before = gpu_nodes()
        arguments = ["--model", "demo", "--language", "en", "--sparsity", "0", "--voice-activity", "off"]
        arguments += ["--shard-hours", str(SHARD_HOURS), "--actors", "2", "--gpus-per-actor", "1"]
        with open(scratch / "job.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, *DRIVER, str(source), "--output", output, *arguments],
                env=os.environ | {"RAY_ADDRESS": address}, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        most = before
        deadline = time.monotonic() + RUN_S
        while process.poll() is None and time.monotonic() < deadline:
            most = max(most, gpu_nodes())
            time.sleep(0.5)
        process.kill()
        status = process.wait()
        deadline = time.monotonic() + START_S
        while gpu_nodes() and time.monotonic() < deadline:
            time.sleep(1)
        return {"gpu_nodes": [before, most, gpu_nodes()], "status": status, "devices": len(devices(output))}
    finally:
        head.terminate()
        head.wait(60)
        end_all(folder)


def end_all(folder: str) -> None:
    """Kill what is left of a Ray whose files lie in a folder: the autoscaler's nodes outlive it."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = folder in (path / "cmdline").read_text() and int(path.name) != os.getpid()
        except OSError:
            continue
        if ours:
            kill(int(path.name))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = tempfile.mkdtemp(prefix="ray-")
    # `ray start` wants a token where the user has one; so let it be one of this cluster alone.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(1))  # leaves by the ways that clean up
    try:
        print(json.dumps(run(parser.parse_args().folder.resolve(), folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
