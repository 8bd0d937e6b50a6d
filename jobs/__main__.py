"""`earshard NAME …` is `python -m jobs.NAME …`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

NOT_JOBS = {"__init__", "__main__", "cli", "options"}


def job_names() -> list[str]:
    """The commands there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_JOBS)


def main() -> None:
    """Run the job that the first argument names; status 2 where it names none."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else "--help"
    if name not in job_names():
        wanted = name in {"--help", "_h", "__help"}
        print(f"usage: earshard {'|'.join(job_names())} …", file=sys.stdout if wanted else sys.stderr)
        sys.exit(0 if wanted else 2)
    sys.argv = [f"earshard {name}", *sys.argv[2:]]
    runpy.run_module(f"jobs.{name}", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
