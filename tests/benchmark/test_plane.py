"""The measurement of the data plane: what it counts, and one small job through all of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from pipeline.benchmark.plane import plane
from pipeline.benchmark.plane.loads import bundled_speech, loads, write_load
from pipeline.benchmark.plane.paced import PacedEngine, busy_share, busy_stretches
from pipeline.benchmark.plane.process_tree import TreeWatch

RATE = 16_000
SPIN = "import time\nwhile time.process_time() < 0.8: pass\ntime.sleep(0.8)"


@pytest.mark.slow
@pytest.mark.timing
def test_the_cpu_time_of_started_processes_counts():
    with TreeWatch() as watch:
        subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert 0.7 < watch.cpu_s < 1.6
    assert watch.cpu_s_of("process_time") == pytest.approx(watch.cpu_s, abs=0.3)
    assert watch.count("process_time") == watch.num_parents("process_time") == 1


def test_the_paced_engine_takes_the_time_of_its_device_and_writes_it_down(tmp_path):
    engine = PacedEngine(rtfx=100.0, folder=tmp_path)
    started = time.perf_counter()
    results = engine.transcribe([np.zeros(10 * RATE, np.int16), np.zeros(20 * RATE, np.int16)])
    assert time.perf_counter() - started >= 0.3
    assert [result.device_s for result in results] == [0.1, 0.2]
    assert len(busy_stretches(tmp_path)) == 1


def test_the_busy_share_is_of_the_time_between_the_first_and_the_last():
    assert busy_share([(0.0, 1.0), (2.0, 3.0), (3.0, 5.0)]) == pytest.approx(0.8)


def test_every_archive_holds_the_hours_asked_for():
    for name, lengths in loads(2.0).items():
        assert sum(lengths) == pytest.approx(7200, rel=0.1), name
    assert all(loads(0.5).values())  # the least that --hours takes


def test_an_archive_is_files_of_the_lengths_asked_for(tmp_path):
    write_load(tmp_path / "in", [1, 2, 1], np.ones(500, np.int16))
    assert [soundfile.info(path).duration for path in sorted((tmp_path / "in").iterdir())] == [1.0, 2.0, 1.0]


def test_the_figures_of_rounds_are_medians_each_for_itself():
    one = {
        **dict.fromkeys((field.name for field in dataclasses.fields(plane.Case)), 1),
        "load": "clips",
    }
    rounds = [plane.Case(**{**one, "cost": cost, "busy_share": 1 / cost}) for cost in (4.0, 1.0, 2.0)]
    found = plane._median(rounds)
    assert (found.load, found.cost, found.busy_share, found.readers) == ("clips", 2.0, 0.5, 1)


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_through_the_plane_has_one_decoder_for_each_reader(tmp_path):
    write_load(tmp_path / "clips", [4] * 40, bundled_speech())
    with plane.cluster.connected():
        with TreeWatch() as nothing:
            pass
        case = plane._measure("manifest", tmp_path / "clips", [4] * 40, 400.0, nothing, "job")
    # Tests before this one may have left a decoder of this process itself.
    assert case.decoders - nothing.count(plane.DECODER) == 1
    assert case.readers - nothing.num_parents(plane.DECODER) == 1
    assert 0 < case.busy_share <= 1
    assert case.cpu_s > case.workers_cpu_s > case.alone_cpu_s > 0
