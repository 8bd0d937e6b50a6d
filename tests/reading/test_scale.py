"""Long recordings and long lists: bounded memory, and nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.reading.made_audio import RATE, write
from tests.reading.read_rows import plan_of, read_all

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DAY_S = 24 * 3600
GIGABYTE = 10**9

# Prints what planning a manifest took: CPU seconds, bytes at the peak, rows.
PLAN = """
import json, resource, sys
from pathlib import Path
from pipeline.planning import make_plan, plan_hash
from pipeline.sources.listing import list_recordings
plan = make_plan(list_recordings([sys.argv[1]]).recordings, shard_hours=1.0)
plan_hash(plan)
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([used.ru_utime + used.ru_stime, int(peak.split()[1]) * 1024, plan.num_rows]))
"""

# Reads a folder in rounds and prints its edges, and the peaks of this process and of its child in bytes.
READ = """
import json, sys
from pathlib import Path
from tests.reading.read_rows import options, plan_of, rounds
from pipeline.reading.shard_reader import ShardReader
edges = []
with ShardReader(options(voice_activity=sys.argv[2] == "on")) as reader:
    for recording, windows in rounds(reader, plan_of(Path(sys.argv[1]))):
        assert recording["error_type"] is None, recording
        times = [windows[0][0]["start_s"], windows[-1][0]["end_s"]] if windows else []
        edges.append([recording["part"], *times])
        del windows
    peaks = []
    for pid in ("self", reader._decoder._child._process.pid):
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks.append(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024)
print(json.dumps([edges, peaks]))
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_million_lines_are_planned_within_a_minute_and_a_gigabyte(tmp_path):
    path = tmp_path / "m.jsonl"
    with open(path, "w") as file:
        for i in range(1_000_000):
            text = f"this is the text of utterance number {i}"
            file.write(
                f'{{"audio_filepath": "wav/{i // 1000:04}/{i:08}.flac", "duration": 7.5, "text": "{text}"}}\n'
            )
    cpu_s, peak_bytes, num_rows = run(PLAN, path)
    assert num_rows == 1_000_000
    assert cpu_s < 60
    assert peak_bytes < GIGABYTE


def day_of_pips(path):
    """Write 24 h of silence with a second of noise every half minute; quick to encode and to decode."""
    minute = np.zeros(60 * RATE, np.int16)
    for at in (7, 37):
        noise = np.random.default_rng(at).integers(-8000, 8000, RATE).astype(np.int16)
        minute[at * RATE : (at + 1) * RATE] = noise
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
        for _ in range(DAY_S // 60):
            file.write(minute)


def test_a_day_is_read_in_parts_that_hold_every_second_once_within_two_gigabytes(tmp_path):
    day_of_pips(tmp_path / "day.flac")
    edges, peaks = run(READ, tmp_path, "off")
    assert [part for part, _, _ in edges] == list(range(len(edges)))
    assert len(edges) > 20
    assert (edges[0][1], edges[-1][2]) == (0.0, pytest.approx(DAY_S))
    assert [end for _, _, end in edges[:-1]] == pytest.approx([start for _, start, _ in edges[1:]])
    assert max(peaks) < 2 * GIGABYTE


def test_two_hours_of_sound_are_searched_for_speech_within_two_gigabytes(tmp_path):
    samples = np.random.default_rng(0).integers(-50, 50, 7000 * RATE, dtype=np.int16)
    write(tmp_path / "a.flac", samples)
    _, peaks = run(READ, tmp_path, "on")
    assert max(peaks) < 2 * GIGABYTE


def test_a_header_that_lies_of_a_day_is_cut_into_parts_all_the_same(tmp_path):
    rng = np.random.default_rng(0)
    samples = np.repeat(rng.integers(-8000, 8000, 1500 * 100), 160).astype(np.int16)
    path = write(tmp_path / "a.flac", samples)
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0]) + (DAY_S * RATE).to_bytes(4, "big")
    path.write_bytes(content)
    found = read_all(plan_of(tmp_path, shard_hours=0.1), shard_hours=0.1)
    assert sum(recording["duration_s"] for recording, _ in found.values()) == pytest.approx(1500, abs=0.1)
    assert found["a.flac", 0, 0][0]["partial"] or found["a.flac", len(found) - 1, 0][0]["partial"]
