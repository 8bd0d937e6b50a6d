"""A model that does not fit into the memory that there is ends the job in one line before it is loaded."""

from __future__ import annotations

import pytest

from pipeline.config import JobOptions, JobRequest, RunOptions
from pipeline.dataflow.workers import Workers
from pipeline.driver import model
from pipeline.driver.model import NotEnoughMemory, check_memory, load_engine
from pipeline.errors import UnfinishedError

DEMO = JobOptions(model="demo", model_revision="r", dtype="float32", engine_version="1")
ONE = Workers(min_actors=1, max_actors=1, gpus_per_actor=0.0, actor_cpus=0.5, threads_per_actor=1)


@pytest.fixture
def num_weights():
    """The weights of the bundled model, as torch counts them."""
    from safetensors import safe_open

    from pipeline.engine.model.hub import WEIGHTS
    from pipeline.engine.model.snapshot import DEMO_FOLDER

    with safe_open(DEMO_FOLDER / WEIGHTS, framework="pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def needed(num_weights, num_actors=1):
    return num_actors * (model.PROCESS_BYTES + 4 * num_weights)


def test_what_fits_is_loaded_and_what_does_not_is_said_with_both_numbers(monkeypatch, num_weights):
    monkeypatch.setattr(model, "allowed_bytes", lambda: needed(num_weights))
    check_memory(DEMO)
    monkeypatch.setattr(model, "allowed_bytes", lambda: needed(num_weights) - 1)
    wanted = r"^0\.4\d GB of memory are there, and demo in float32 needs at least 0\.4\d GB; give "
    with pytest.raises(NotEnoughMemory, match=wanted):
        check_memory(DEMO)
    assert issubclass(NotEnoughMemory, UnfinishedError)


def test_every_actor_and_what_is_beside_them_counts(monkeypatch, num_weights):
    monkeypatch.setattr(model, "allowed_bytes", lambda: needed(num_weights, 2) + 100)
    check_memory(DEMO, num_actors=2, beside=100)
    for more in ({"num_actors": 3}, {"num_actors": 2, "beside": 101}):
        with pytest.raises(NotEnoughMemory):
            check_memory(DEMO, **more)


def test_an_engine_is_not_made_where_it_does_not_fit(monkeypatch):
    monkeypatch.setattr(model, "allowed_bytes", lambda: 1000)
    with pytest.raises(NotEnoughMemory, match=r"^0\.00 GB of memory are there"):
        load_engine(DEMO, RunOptions(), ONE)


@pytest.mark.parametrize(
    ("flags", "address", "dtype"),
    [
        ({"avx2", "avx512_vnni"}, None, "int8"),
        ({"avx2"}, None, "int8"),
        ({"sse4_2"}, None, "float32"),
        ({"avx2"}, "10.0.0.1:6379", "float32"),  # its other machines may lack it
    ],
)
def test_a_job_of_this_machine_runs_in_int8_where_the_processor_is_made_for_it(
    monkeypatch, flags, address, dtype
):
    monkeypatch.setattr(model, "cpu_flags", lambda: flags)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    request = JobRequest(inputs=("in",), output="out", model="demo")
    run = RunOptions(gpus_per_actor=0)
    assert model.resolve_options(request, run).dtype == dtype
    assert model.resolve_options(request, run, {"options": {"dtype": "float32"}}).dtype == "float32"
