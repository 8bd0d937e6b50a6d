"""The programs of docs/integrations.md run as they stand there and print what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = re.compile(r"`(\w+\.py)`[^\n]*:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^```\n\n```\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("title", "packages"),
    [
        pytest.param("Ray Data", ["ray"], marks=[pytest.mark.ray, pytest.mark.slow]),
        pytest.param("Daft", ["daft"], marks=pytest.mark.slow),
        pytest.param("NeMo Curator", ["nemo_curator", "torchaudio"], marks=pytest.mark.slow),
    ],
)
def test_a_program_of_the_page_prints_what_the_page_shows(title, packages, tmp_path):
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    section = (ROOT / "docs/integrations.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    programs = PROGRAM.findall(section)
    for name, text in programs:
        (tmp_path / name).write_text(text)
    places = {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, tmp_path / programs[-1][0]],
        cwd=ROOT,
        env=os.environ | places,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    (printed,) = PRINTED.findall(section)
    assert ran.stdout.endswith(printed), ran.stdout
