"""What may pass by itself is tried again, in a folder and in a bucket, and the rest is said at once."""

from __future__ import annotations

import errno
import json
import os
import time

import pytest

from pipeline import errors
from pipeline.driver import lock
from pipeline.driver.lock import DriverLock
from pipeline.output.local_store import LocalStore
from pipeline.output.retried import OutputFailed


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "BACK_OFF_S", (0.0, 0.0, 0.0))
    return LocalStore.open(str(tmp_path))


def failing(real, times, code):
    """A function that fails so many times before it does what it should."""
    left = [times]

    def call(*arguments, **settings):
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return real(*arguments, **settings)

    return call


@pytest.mark.parametrize("code", [errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE])
def test_a_write_whose_error_passes_succeeds(store, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 3, code))
    assert store.publish("a/b", b"1")
    assert store.read("a/b") == b"1"


@pytest.mark.parametrize(("code", "times"), [(errno.EIO, 4), (errno.ENOSPC, 1), (errno.EROFS, 1)])
def test_an_error_that_stays_names_the_file(store, monkeypatch, code, times):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, times, code))
    with pytest.raises(OutputFailed, match=f"/a/b: {os.strerror(code)}"):
        store.publish("a/b", b"1")
    assert store.read("a/b") is None
    assert store.publish("a/b", b"1")


def test_calls_pause_between_tries_and_end(monkeypatch):
    pauses = []
    monkeypatch.setattr(errors, "BACK_OFF_S", (1.0, 2.0, 3.0))
    monkeypatch.setattr(errors.time, "sleep", pauses.append)
    call = failing(lambda: "done", 2, errno.EIO)
    assert errors.with_back_off(call) == "done"
    assert pauses == [1.0, 2.0]
    with pytest.raises(OSError, match="Input/output error"):
        errors.with_back_off(failing(lambda: "done", 4, errno.EIO))


def test_a_renewal_that_fails_does_not_give_the_lock_up(store, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.01)
    with DriverLock(store, "first"):
        before = json.loads(store.read(lock.NAME))["expires"]
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync, 10**6, errno.ENOSPC))
            time.sleep(0.1)
        deadline = time.monotonic() + 60
        while json.loads(store.read(lock.NAME))["expires"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "lines", "wanted"),
    [
        (OSError(errno.ENOENT, "No such file", "a.wav"), slice(None), "No such file"),
        (OSError("no such\n  bucket"), slice(None), "no such bucket"),
        (ValueError(), slice(None), "ValueError"),
        (RuntimeError("first\n\n  traceback\nlast "), slice(1), "first"),
        (RuntimeError("first\n\n  traceback\nlast "), slice(-1, None), "last"),
        (ValueError("x" * 300), slice(None), "x" * 200),
    ],
)
def test_an_error_is_said_in_one_line(error, lines, wanted):
    assert errors.one_line(error, lines) == wanted


def test_an_output_that_fails_is_an_error_of_the_system_too():
    assert issubclass(OutputFailed, OSError)
    assert issubclass(OutputFailed, errors.UnfinishedError)
