"""The documents say what the code does."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.sources.locations import SCHEMES
from pipeline.sources.manifest_fields import FIELD_NAMES
from pipeline.sources.manifest_lines import MANIFEST_EXTENSIONS
from pipeline.sources.recording import ERROR_TYPES, MEDIA_RATES, PASSING
from pipeline.sources.selection import LEFT_BEHIND

ROOT = Path(__file__).parents[1]
TABLES = {
    "transcripts": schema.TRANSCRIPTS,
    "metrics": schema.METRICS,
    "policy/sample": schema.SAMPLE,
    "plan": schema.PLAN,
    "copies": schema.COPIES,
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


def test_the_error_types_are_those_of_the_code():
    outputs = (ROOT / "docs" / "outputs.md").read_text()
    named = outputs.partition("`error_type` is one of: ")[2].partition(".")[0]
    assert tuple(re.findall(r"`(\w+)`", named)) == ERROR_TYPES
    archive = (ROOT / "docs" / "archive.md").read_text()
    (passing,) = re.findall(r"^\| (.*) \| failed, and tried again next time \|$", archive, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", passing)) | {"changed"} == PASSING  # a change has a row of its own


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_page_of_inputs_has_the_names_endings_and_patterns_of_the_code():
    page = (ROOT / "docs" / "inputs.md").read_text()
    table = page.partition("## Manifests")[2].partition("## ")[0]
    fields = re.findall(r"^\| (\w+) \| (`.*?`) \|", table, re.MULTILINE)
    assert {name: tuple(words(names)) for name, names in fields} == FIELD_NAMES
    endings = re.findall(r"^\| (?:samples|lossless|lossy|video) \| (.*) \|$", page, re.MULTILINE)
    assert sorted(words(" ".join(endings))) == sorted(MEDIA_RATES)
    passed_over = page.partition("in any case:\n")[2].partition("; and")[0]
    assert tuple(words(passed_over)) == LEFT_BEHIND
    formats = page.partition("| a manifest: ")[2].partition(",")[0]
    assert {name[1:] for name in words(formats)} == set(MANIFEST_EXTENSIONS)
    assert set(words(page.partition("\nURLs: ")[2].partition(",")[0])) == {"file", *SCHEMES}


def test_the_page_of_inputs_says_of_every_error_type_whether_an_archive_tries_it_again():
    page = (ROOT / "docs" / "inputs.md").read_text().partition("## `error_type`")[2]
    table = re.findall(r"^\| `(\w+)` \| .+ \| .+ \| (yes|no) \|$", page, re.MULTILINE)
    assert [name for name, _ in table] == list(ERROR_TYPES)
    assert {name for name, again in table if again == "yes"} == PASSING


def test_every_error_type_is_raised_somewhere():
    sources = [path.read_text() for path in (ROOT / "pipeline").rglob("*.py") if path.name != "recording.py"]
    assert [name for name in ERROR_TYPES if not any(f'"{name}"' in text for text in sources)] == []


def test_every_option_of_transcribe_is_in_its_page():
    from jobs.transcribe import transcribe

    page = (ROOT / "docs" / "transcribe.md").read_text()
    options = [name for parameter in transcribe.params for name in parameter.opts if name.startswith("--")]
    assert [option for option in options if f"| `{option}` |" not in page] == []


def test_every_error_type_has_its_line_among_the_troubles():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert [name for name in ERROR_TYPES if f"| `{name}` |" not in page] == []


def test_every_message_among_the_troubles_is_one_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    table = page.partition("## What a command says")[2].partition("## ")[0]
    code = "".join(
        path.read_text() for folder in ("pipeline", "jobs") for path in (ROOT / folder).rglob("*.py")
    )
    shown = re.findall(
        r"`([^`]+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)
    )
    assert len(shown) > 10
    assert [text for text in shown for part in text.split("…") if part.strip() not in code] == []


PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
IDS = {"ids": lambda page: page.name}
TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def blocks(page: Path, language: str = r"\w*") -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The words of every command of ours that a page shows, those that are submitted to a cluster too."""
    for block in blocks(page):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            found = re.search(r"(?:python -m jobs\.|(?<![\w/.-])earshard )(\w+)([^#|>&]*)", line)
            if found and not line.startswith(("error:", "Running entrypoint")):
                yield [found[1], *found[2].split()]


def command_of(name: str) -> click.Command:
    """The command of a job, not one that it imports."""
    module = importlib.import_module(f"jobs.{name}")
    commands = [value for value in vars(module).values() if isinstance(value, click.Command)]
    return next(one for one in commands if one.callback and one.callback.__module__ == module.__name__)


def links_of(page: Path) -> set[Path]:
    """What a page links to in this repository."""
    links = re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", page.read_text())
    return {(page.parent / link).resolve() for link in links if "://" not in link}


@pytest.mark.parametrize("page", PAGES, **IDS)
def test_every_link_leads_somewhere(page):
    assert [path for path in links_of(page) if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, **IDS)
def test_every_test_and_module_that_is_named_is_there(page):
    text = page.read_text()
    paths = re.findall(r"\b((?:tests|pipeline|jobs)/[\w/]+\.py)\b", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    named = re.findall(r"`(test_\w+)`", text)
    assert [name for name in named if f"def {name}(" not in TESTS] == []


@pytest.mark.parametrize("page", PAGES, **IDS)
def test_every_command_shown_has_the_options_shown(page):
    for name, *words in shown_commands(page):
        command = command_of(name)
        known = {option.replace("_", "-") for parameter in command.params for option in parameter.opts}
        given = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
        assert given <= known | {"--help"}, f"{page.name}: {name} {words}"


def test_pythons_examples_import_what_exists():
    for page in PAGES:
        for block in blocks(page, "python"):
            tree = ast.parse(block)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("pipeline"):
                    module = importlib.import_module(node.module)
                    assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_every_page_is_reached_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        ahead += [path for path in links_of(page) if path in PAGES and path not in reached]
    assert reached == set(PAGES)
