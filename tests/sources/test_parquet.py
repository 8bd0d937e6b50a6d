"""Parquet with the audio in a column."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reading.made_audio import vowels, wav_bytes, write
from tests.sources.inputs import heard, listed


def test_parquet_with_paths_in_the_place_of_audio_is_a_manifest(tmp_path):
    write(tmp_path / "a.wav", vowels(0.5))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = pa.schema([("audio", kind), ("sentence", pa.string())])
    rows = [{"audio": {"bytes": None, "path": "a.wav"}, "sentence": "s"}]
    pq.write_table(pa.Table.from_pylist(rows, schema=columns), tmp_path / "x.parquet")
    assert listed(tmp_path / "x.parquet")[0]["a.wav"].reference == "s"
    assert heard(tmp_path / "x.parquet") == {"a.wav": 0.5}


def test_parquet_with_audio_in_it(tmp_path):
    rows = [
        {"audio": {"bytes": wav_bytes(vowels(0.5 + i)), "path": f"{i}.wav"}, "sentence": f"s{i}"}
        for i in range(3)
    ]
    rows.append({"audio": None, "sentence": "nothing"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=2)
    recordings, _ = listed(tmp_path / "x.parquet")
    assert [r.reference for r in recordings.values()] == ["s0", "s1", "s2", "nothing"]
    found = heard(tmp_path / "x.parquet")
    assert list(found.values()) == [0.5, 1.5, 2.5, "no_audio"]
    assert next(iter(found)) == "x.parquet/row-0000000"
