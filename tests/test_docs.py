"""The documents say what the code does."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schema

ROOT = Path(__file__).parents[1]
TABLES = {
    "transcripts": schema.TRANSCRIPTS,
    "metrics": schema.METRICS,
    "policy/sample": schema.SAMPLE,
    "plan": schema.PLAN,
}


def rows(field: pa.Field, prefix: str = "") -> Iterator[str]:
    name = prefix + field.name
    nested = pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type)
    kind = "list of" if nested else str(field.type)
    yield f"| `{name}` | {kind} | {'yes' if field.nullable else 'no'} |"
    for child in field.type.value_type if nested else ():
        yield from rows(child, f"{name}[].")


def markdown(columns: pa.Schema) -> str:
    return "\n".join(
        ["| column | type | null |", "|---|---|---|", *(row for field in columns for row in rows(field))]
    )


@pytest.mark.parametrize("title", TABLES)
def test_the_tables_of_types_are_those_of_the_schemas(title):
    section = (ROOT / "docs" / "outputs.md").read_text().partition(f"### {title}\n")[2]
    wanted = markdown(TABLES[title])
    assert wanted in section, f"docs/outputs.md should hold under {title}:\n{wanted}"


def test_every_option_of_transcribe_is_in_the_readme():
    from jobs.transcribe import transcribe

    readme = (ROOT / "README.md").read_text()
    missing = [
        option for parameter in transcribe.params for option in parameter.opts if option.startswith("--")
    ]
    assert [option for option in missing if option not in readme] == []
