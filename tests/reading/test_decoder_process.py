"""The decoding process: kept from file to file, asked for several at once, replaced after a crash."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.reading.audio import DecodeLimits
from pipeline.reading.decoder import AudioDecoder
from pipeline.reading.decoder_child import NICENESS
from pipeline.reading.decoder_process import DecoderProcess
from pipeline.sources.recording import RecordingError
from tests.reading.decoding import decode, decode_starts, error_of
from tests.reading.made_audio import encode, vowels, wav_bytes, write


@pytest.fixture
def wav(tmp_path):
    return write(tmp_path / "a.wav", vowels(5))


def child_pid(decoder):
    assert isinstance(decoder._child, DecoderProcess)
    return decoder._child._process.pid


def test_the_process_is_kept_from_file_to_file(decoder, wav):
    decode(decoder, wav)
    pid = child_pid(decoder)
    for _ in range(3):
        decode(decoder, wav)
    assert child_pid(decoder) == pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_of_a_job_does_not_make_the_recording_a_crashed_one(decoder, wav, number):
    decode(decoder, wav)
    pid = child_pid(decoder)
    os.kill(pid, number)
    assert decode(decoder, wav).duration_s == 5.0
    assert child_pid(decoder) == pid


def test_a_process_whose_parent_has_ended_says_nothing():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    limits = json.dumps({"address_space_bytes": 1 << 31, "open_files": 64})
    command = [sys.executable, "-m", "pipeline.reading.decoder_child", str(theirs.fileno()), limits]
    done = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True, check=False)
    theirs.close()
    assert done.stderr == b""


def test_it_yields_to_the_model(decoder, wav):
    decode(decoder, wav)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, child_pid(decoder)) == min(19, ours + NICENESS)


def test_a_bad_file_does_not_cost_the_process(decoder, wav, tmp_path):
    decode(decoder, wav)
    pid = child_pid(decoder)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    error_of(decoder, tmp_path / "bad.wav")
    assert decode(decoder, wav).duration_s == 5.0
    assert child_pid(decoder) == pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_costs_one_recording_and_the_next_has_a_new_process(wav, tmp_path, number):
    with AudioDecoder() as decoder:
        decode(decoder, wav)
        old = child_pid(decoder)
        os.kill(old, signal.SIGSTOP)  # so that it dies at the recording
        threading.Timer(0.3, lambda: [os.kill(old, number), os.kill(old, signal.SIGCONT)]).start()
        assert error_of(decoder, wav) == "crashed"
        assert decode(decoder, wav).duration_s == 5.0
        assert child_pid(decoder) != old


def test_a_hang_ends_at_the_deadline(wav):
    with AudioDecoder(DecodeLimits(stall_s=0.5)) as decoder:
        decode(decoder, wav)
        os.kill(child_pid(decoder), signal.SIGSTOP)
        started = time.monotonic()
        assert error_of(decoder, wav) == "timeout"
        assert time.monotonic() - started < DecodeLimits().stall_s / 2
        assert decode(decoder, wav).duration_s == 5.0


def tight_limits(path):
    """Limits with little more memory than it takes to decode a recording."""
    with AudioDecoder() as decoder:
        decode(decoder, path)
        pages = Path(f"/proc/{child_pid(decoder)}/statm").read_text().split()[0]
    return DecodeLimits(address_space_bytes=int(pages) * os.sysconf("SC_PAGE_SIZE") + (4 << 20))


@pytest.fixture
def wide(tmp_path):
    """A recording that needs more than that."""
    return write(tmp_path / "wide.wav", np.zeros((200_000, 32), np.float32), 48_000)


def test_swelling_is_a_stated_error(tmp_path, wide):
    path = encode(tmp_path / "a.m4a", vowels(5), "aac")
    with AudioDecoder(tight_limits(path)) as decoder:
        assert error_of(decoder, wide) in ("crashed", "corrupt")
        assert decode(decoder, path).duration_s > 4


def test_no_process_and_no_descriptor_is_left(wav):
    before = len(os.listdir("/proc/self/fd"))
    with AudioDecoder() as decoder:
        for _ in range(5):
            decode(decoder, wav)
            decode_starts(decoder, [wav] * 5)
        pid = child_pid(decoder)
    assert not os.path.exists(f"/proc/{pid}")
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.fixture
def mixed(tmp_path):
    """Recordings of many kinds, and what is none: (path, error type or None)."""
    (tmp_path / "b.mp3").write_text("<html>404</html>")
    (tmp_path / "d.wav").write_bytes(wav_bytes(vowels(2))[:30])
    return [
        (write(tmp_path / "a.wav", vowels(2, seed=1)), None),
        (tmp_path / "b.mp3", "unsupported"),
        (write(tmp_path / "c.flac", np.stack([vowels(3, rate=44_100)] * 2, 1), 44_100), None),
        (tmp_path / "d.wav", "corrupt"),
        (encode(tmp_path / "e.m4a", vowels(2, seed=2), "aac"), None),
        (write(tmp_path / "f.wav", np.zeros((10, 40))), "too_many_channels"),
        (write(tmp_path / "g.wav", np.zeros(0, np.float32)), None),
        (write(tmp_path / "h.ogg", vowels(1, seed=3)), None),
    ]


def test_starts_that_are_decoded_together_are_what_each_is_alone(decoder, mixed):
    found = decode_starts(decoder, [path for path, _ in mixed])
    for (path, error_type), outcome in zip(mixed, found, strict=True):
        if error_type is not None:
            assert isinstance(outcome, RecordingError)
            assert outcome.error_type == error_type == error_of(decoder, path, max_s=60.0)
            assert path.name in str(outcome)
            continue
        alone = decode(decoder, path, max_s=60.0)
        assert np.array_equal(outcome.samples, alone.samples)
        for name in ("offset_s", "declared_s", "ended", "decoded_by", "partial", "num_bad_samples"):
            assert getattr(outcome, name) == getattr(alone, name), name


def test_together_only_the_starts_of_long_recordings_are_decoded(decoder, tmp_path):
    paths = [write(tmp_path / f"{s}.wav", vowels(s)) for s in (1, 5, 2)]
    found = decode_starts(decoder, paths, max_s=2.5)
    assert [(one.duration_s, one.ended) for one in found] == [(1.0, True), (2.5, False), (2.0, True)]
    assert decode_starts(decoder, []) == []


def test_swelling_among_others_costs_one_recording(tmp_path, wide):
    path = encode(tmp_path / "a.m4a", vowels(2), "aac")
    with AudioDecoder(tight_limits(path)) as decoder:
        failed, *others = decode_starts(decoder, [wide, path, path])
    assert failed.error_type in ("crashed", "corrupt")
    assert [round(one.duration_s) for one in others] == [2, 2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_after_a_crash_among_several_each_is_decoded_by_itself(mixed, number):
    with AudioDecoder() as decoder:
        decode(decoder, mixed[0][0])
        old = child_pid(decoder)
        os.kill(old, signal.SIGSTOP)
        threading.Timer(0.3, lambda: [os.kill(old, number), os.kill(old, signal.SIGCONT)]).start()
        found = decode_starts(decoder, [path for path, _ in mixed])
        assert child_pid(decoder) != old
    assert [getattr(one, "error_type", None) for one in found] == [error_type for _, error_type in mixed]


def test_silence_that_unpacks_to_hours_takes_little_memory(decoder, tmp_path):
    path = write(tmp_path / "a.flac", np.zeros(3600 * 8000, np.int16), 8000)
    found = decode(decoder, path, max_s=7200)
    assert found.duration_s == 3600
    status = Path(f"/proc/{child_pid(decoder)}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 600_000  # kB
