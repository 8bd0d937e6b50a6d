"""Machines of many GPUs: how many actors, how many cores read for them, and what the job says of too few."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.config import JobRequest, OptionError, RunOptions
from pipeline.dataflow import workers
from pipeline.dataflow.cluster import ClusterError
from pipeline.dataflow.workers import COMMIT_CPUS, READ_CPUS, READ_RTFX, choose_workers, num_readers
from tests.fakes import RATE, FakeEngine, result

CLUSTER_PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
NUM_GPUS = 4
KILLS_ONCE = 12345


@pytest.fixture
def machine(monkeypatch):
    """A Ray of nodes with so many (CPUs, GPUs) each."""
    import ray

    def made(*nodes):
        found = [{"Alive": True, "Resources": {"CPU": float(c), "GPU": float(g)}} for c, g in nodes]
        monkeypatch.setattr(ray, "nodes", lambda: found)

    return made


@pytest.fixture
def on_cluster(monkeypatch):
    monkeypatch.setattr(workers, "on_cluster", lambda: True)


def gpu_run(**options):
    return RunOptions(**({"gpus_per_actor": 1.0} | options))


@pytest.mark.parametrize(("cpus", "gpus"), [(2, 1), (2, 8), (4, 8), (16, 1), (16, 8), (128, 8)])
def test_every_gpu_has_an_actor_and_a_shard_is_read_and_one_committed_beside_them(cpus, gpus, machine):
    machine((cpus, gpus))
    found = choose_workers(gpu_run(), 100)
    assert (found.min_actors, found.max_actors, found.gpus_per_actor) == (gpus, gpus, 1.0)
    assert 0 < found.actor_cpus <= 0.5
    assert gpus * found.actor_cpus + READ_CPUS + COMMIT_CPUS <= cpus
    assert num_readers(cpus, gpus, found.actor_cpus) >= 1


def test_actors_are_counted_node_by_node(machine, on_cluster):
    machine((16, 1), (16, 1), (16, 2))
    found = choose_workers(gpu_run(gpus_per_actor=2.0), 100)
    assert (found.min_actors, found.max_actors) == (1, 100)
    assert workers._num_fitting({"GPU": 1.0}, 2.0) == 0
    assert workers._num_fitting({"GPU": 1.0}, 0.1) == 10


def test_a_node_of_few_cpus_has_room_for_the_actors_of_all_its_gpus(machine, on_cluster):
    machine((64, 0), (2, 8))
    assert choose_workers(gpu_run(), 100).actor_cpus == 0.25


def test_what_no_autoscaler_could_bring_is_refused(machine):
    machine((16, 2))
    with pytest.raises(OptionError, match=r"^--actors 3: must be at most 2 on 2 GPUs$"):
        choose_workers(gpu_run(min_actors=3, max_actors=3), 100)
    with pytest.raises(ClusterError, match=r"^--gpus-per-actor 4: Ray sees 2 GPUs here$"):
        choose_workers(gpu_run(gpus_per_actor=4.0), 100)
    machine((1, 1))
    with pytest.raises(ClusterError, match=r"^1 CPU beside 1 actors on GPUs; a job needs 2: "):
        choose_workers(gpu_run(), 100)


def test_too_few_cpus_are_one_line_with_the_rate_that_they_reach(machine, caplog):
    machine((16, 8))
    with caplog.at_level(logging.WARNING, logger="earshard"):
        choose_workers(gpu_run(), 100)
    (line,) = caplog.messages
    assert line.startswith(
        "16 CPUs beside 8 GPUs: 11 of them read, which reaches RTFx 9,900, 1,238 for each GPU;"
    )
    assert "\n" not in line
    caplog.clear()
    machine((64, 8))
    choose_workers(gpu_run(), 100)
    assert not caplog.messages


def test_the_page_shows_what_is_chosen(machine, caplog):
    table = [line for line in CLUSTER_PAGE.read_text().splitlines() if re.match(r"\| \d+ CPUs ", line)]
    assert len(table) == 4
    for line in table:
        cpus, *cells = re.findall(r"\| (\d+) CPUs|(\*?\d+ read, [\d,]+)", line)
        assert len(cells) == 3
        for gpus, (_, cell) in zip((1, 4, 8), cells, strict=True):
            caplog.clear()
            machine((int(cpus[0]), gpus))
            chosen = choose_workers(gpu_run(), 100)
            assert chosen.max_actors == gpus
            readers = num_readers(int(cpus[0]), gpus, chosen.actor_cpus)
            is_few = "*" if caplog.messages else ""
            assert cell == f"{is_few}{readers} read, {readers * READ_RTFX / gpus:,.0f}"


def say_where(samples, language, *, flag):
    """What the actor sees of the GPUs, who it is and when it worked; one recording kills the first."""
    started = time.time()
    if samples[0] == KILLS_ONCE and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    visible = os.environ["CUDA_VISIBLE_DEVICES"]
    return result(f"{visible} {os.getpid()} {started} {time.time()}", language=language)


def load_saying(_options, _run, _workers, *, flag):
    return FakeEngine(answer=partial(say_where, flag=flag))


@pytest.fixture
def fake_gpus(monkeypatch):
    """A Ray of four GPUs that are not there."""
    import ray
    from ray import cloudpickle

    for name in (__name__, "tests.fakes"):
        cloudpickle.register_pickle_by_value(sys.modules[name])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    ray.init(address="local", num_cpus=6, num_gpus=NUM_GPUS, include_dashboard=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    for name in (__name__, "tests.fakes"):
        cloudpickle.unregister_pickle_by_value(sys.modules[name])


@pytest.mark.ray
@pytest.mark.slow
def test_every_actor_has_a_gpu_of_its_own_and_one_that_is_killed_gets_one_again(fake_gpus, tmp_path, recwarn):
    from pipeline.driver.job import run_job
    from pipeline.output.files import read_transcripts

    (tmp_path / "in").mkdir()
    for number in range(16):
        loudness = KILLS_ONCE if number == 5 else 1000 + number
        soundfile.write(tmp_path / "in" / f"{number}.wav", np.full(2 * RATE, loudness, np.int16), RATE)
    options = {
        "language": "en", "voice_activity": False, "sparsify_layer": 1, "task": "transcribe", "sparsity": 0.0,
        "shard_hours": 1 / 3600,
    }  # fmt: skip
    request = JobRequest(
        inputs=(str(tmp_path / "in"),), output=str(tmp_path / "out"), model="demo", options=options
    )
    totals = run_job(request, gpu_run(), load=partial(load_saying, flag=tmp_path / "killed"))
    assert (tmp_path / "killed").exists()
    assert (totals["num_ok"], totals["num_failed"]) == (16, 0)
    assert not [one for one in recwarn if "number of concurrent actors" in str(one.message)], (
        "more than shards"
    )
    heard = [row["text"].split() for row in read_transcripts(str(tmp_path / "out"))]
    used = {visible for visible, *_ in heard}  # a busy machine starts an actor too late for any of the shards
    assert used <= set("0123")
    assert len(used) > 1
    work = sorted((visible, float(start), float(end), pid) for visible, pid, start, end in heard)
    for (gpu, _, end, pid), (other_gpu, start, _, other_pid) in itertools.pairwise(work):
        assert gpu != other_gpu or pid == other_pid or end <= start, "two actors at once on one GPU"
    until = time.monotonic() + 60
    while fake_gpus.available_resources().get("GPU") != NUM_GPUS and time.monotonic() < until:
        time.sleep(0.2)
    assert fake_gpus.available_resources()["GPU"] == NUM_GPUS, "an actor outlived its round"
