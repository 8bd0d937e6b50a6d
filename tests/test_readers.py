"""Committed Parquet in the programs that people read it with, and the rules that its names must keep."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from tests.results.test_exports import make_output, segment, transcript

ROOT = Path(__file__).parents[1]
WORD = {"start_s": 0.5, "end_s": 0.9, "word": " Grüße", "probability": 0.9}
TABLES = {"transcripts": schema.TRANSCRIPTS, "metrics": schema.METRICS, "plan": schema.PLAN}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Two recordings, one with segments and words in two languages, one that failed."""
    segments = [
        segment("Grüße", 0.5, 1.0, language="de", words=[WORD]),
        segment("Numéro un", 61.0, 62.0, language="fr", words=[WORD]),
    ]
    failed = {"status": "failed", "text": None, "language": None, "error_type": "corrupt"}
    rows = [transcript("a.wav", segments), transcript("b.wav", **failed)]
    return make_output(tmp_path_factory.mktemp("job") / "out", rows)


@pytest.fixture(scope="module")
def glob(output):
    return str(output / "transcripts" / "*.parquet")


def test_pandas_reads_nested_rows(output):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(output / "transcripts")
    assert frame["recording_id"].tolist() == ["a.wav", "b.wav"]
    said = pandas.json_normalize(frame["segments"].explode().dropna().tolist())
    assert said.loc[said["language"] == "fr", "start_s"].tolist() == [61.0]
    assert said["words"].iloc[0][0]["word"] == " Grüße"


def test_polars_reads_nested_rows(glob):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    said = polars.scan_parquet(glob).select("recording_id", "segments").explode("segments").unnest("segments")
    found = said.filter(polars.col("language") == "fr").select("text", "start_s").collect()
    assert found.rows() == [("Numéro un", 61.0)]


def test_duckdb_reads_nested_rows_and_finds_a_passage_without_its_accents(glob):
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(rf"""
        SELECT recording_id, said.language, said.start_s
        FROM (SELECT *, unnest(segments) AS said FROM '{glob}')
        WHERE regexp_matches(strip_accents(said.text), '(?i)\bnumero\b')
    """).fetchall()
    assert found == [("a.wav", "fr", 61.0)]


def test_sqlite_finds_a_passage_by_the_program_of_the_page(output, tmp_path, monkeypatch, capsys):
    """Runs what docs/search.md shows."""
    if (
        not sqlite3.connect(":memory:")
        .execute("SELECT sqlite_compileoption_used('ENABLE_FTS5')")
        .fetchone()[0]
    ):
        pytest.skip("this SQLite has no FTS5")
    page = (ROOT / "docs" / "search.md").read_text()
    (program,) = (
        code for code in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "sqlite3" in code
    )
    (tmp_path / "out").symlink_to(output)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert (
        "language:fr AND text:numero\n  a.wav                    fr    61.0 s  [Numéro] un"
        in capsys.readouterr().out
    )


def names_of(fields, depth=1):
    """The names on every level of nested fields, with their depth."""
    yield [field.name for field in fields], depth
    for field in fields:
        kind = field.type
        while pa.types.is_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            yield from names_of(list(kind), depth + 1)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_nested_names_keep_the_rules_of_spark_and_bigquery(table):
    """BigQuery: [A-Za-z_][A-Za-z0-9_]*, 300 characters, reserved prefixes, 15 levels; Spark: case is one."""
    reserved = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")
    for names, depth in names_of(list(table)):
        assert depth <= 15
        assert len({name.lower() for name in names}) == len(names)
        for name in names:
            assert re.fullmatch(r"[A-Za-z_]\w{0,299}", name, re.ASCII)
            assert not name.lower().startswith(reserved)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_types_are_those_that_spark_reads(table):
    """No unsigned numbers, no 64-bit offsets, no nanoseconds: Spark's reader of Parquet has none of them."""
    allowed = (pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("ms", tz="UTC"))

    def check(kind):
        if pa.types.is_list(kind):
            check(kind.value_type)
        elif pa.types.is_struct(kind):
            for field in kind:
                check(field.type)
        else:
            assert kind in allowed

    for field in table:
        check(field.type)


def test_lists_are_written_in_three_levels_as_spark_and_bigquery_expect(output):
    path = next((output / "transcripts").glob("*.parquet"))
    paths = [
        column.path
        for column in (pq.ParquetFile(path).schema.column(i) for i in range(len(pq.ParquetFile(path).schema)))
        if "segments" in column.path
    ]
    assert "segments.list.element.words.list.element.word" in paths
