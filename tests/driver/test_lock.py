"""One driver at a time on one output."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from pipeline.driver import lock
from pipeline.driver.lock import DriverLock, OutputBusy
from pipeline.output.local_store import LocalStore


def may_unshare():
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def store(tmp_path):
    return LocalStore.open(str(tmp_path))


def held_by(store, **changes):
    with DriverLock(store, "other"):
        content = json.loads(store.read(lock.NAME))
    store.publish(lock.NAME, json.dumps(content | changes).encode())


def test_a_second_driver_is_told_who_holds_the_output(store):
    with (
        DriverLock(store, "first"),
        pytest.raises(OutputBusy, match="run first works on it"),
        DriverLock(store, "second"),
    ):
        pass


def test_the_lock_is_free_after_its_holder_left(store):
    with DriverLock(store, "first"):
        pass
    with DriverLock(store, "second"):
        assert json.loads(store.read(lock.NAME))["run_id"] == "second"
    assert store.read(lock.NAME) is None


def test_a_process_of_this_host_that_was_killed_holds_nothing(store):
    code = (
        "import os, sys\nfrom pipeline.driver.lock import DriverLock\n"
        "from pipeline.output.local_store import LocalStore\n"
        "DriverLock(LocalStore.open(sys.argv[1]), 'killed').__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert json.loads(store.read(lock.NAME))["run_id"] == "killed"
    with DriverLock(store, "next"):
        assert json.loads(store.read(lock.NAME))["run_id"] == "next"


def test_a_lock_of_another_host_holds_until_it_expires(store):
    held_by(store, host="elsewhere", pid_space="elsewhere", expires=time.time() + 60)
    with pytest.raises(OutputBusy, match="elsewhere"), DriverLock(store, "next"):
        pass
    store.delete(lock.NAME)
    held_by(store, host="elsewhere", pid_space="elsewhere", expires=time.time() - 1)
    with DriverLock(store, "next"):
        pass


def test_a_lock_of_another_pid_namespace_under_the_same_host_name_holds_until_it_expires(store):
    unseen = {"pid": 2**22 + 1, "pid_space": "another boot pid:[1]"}
    held_by(store, **unseen, expires=time.time() + 60)
    with pytest.raises(OutputBusy, match="run other works on it"), DriverLock(store, "next"):
        pass
    store.delete(lock.NAME)
    held_by(store, **unseen, expires=time.time() - 1)
    with DriverLock(store, "next"):
        pass


@pytest.mark.skipif(not may_unshare(), reason="needs unshare and the right to use it")
def test_a_driver_in_a_pid_namespace_of_its_own_is_told_who_holds_the_output(store):
    code = (
        "import sys\nfrom pipeline.driver.lock import DriverLock, OutputBusy\n"
        "from pipeline.output.local_store import LocalStore\n"
        "try:\n    DriverLock(LocalStore.open(sys.argv[1]), 'second').__enter__()\n"
        "except OutputBusy as error:\n    print(error)"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code, str(store.root)]
    with DriverLock(store, "first"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "run first works on it (process " in done.stdout


def test_a_lock_is_renewed_while_it_is_held(store, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.01)
    with DriverLock(store, "first"):
        before = json.loads(store.read(lock.NAME))["expires"]
        deadline = time.monotonic() + 60
        while json.loads(store.read(lock.NAME))["expires"] <= before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
