"""A program's own process: recordings in on stdin, one JSON line for each on stdout.

`python -m pipeline.benchmark.accuracy.child PROGRAM MANIFEST MODEL LANGUAGE` (`auto`: the program finds it);
stdin names files of the manifest, one a line, all in that language. Each line has `cpu_s`, the CPU time of
the process and of its children since the line before.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.benchmark.accuracy.corpus import read_corpus
from pipeline.benchmark.accuracy.programs import PROGRAMS


def main() -> None:
    """Runs one program over the files named on stdin."""
    name, manifest, model, language = sys.argv[1:]
    wanted = set(sys.stdin.read().splitlines())
    recordings = [one for one in read_corpus(Path(manifest)) if one.file in wanted]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no result
    before_s = 0.0
    for heard in PROGRAMS[name](recordings, None if language == "auto" else language, Path(model)):
        times = os.times()
        now_s = times.user + times.system + times.children_user + times.children_system
        print(json.dumps({**asdict(heard), "cpu_s": now_s - before_s}), file=out, flush=True)
        before_s = now_s


if __name__ == "__main__":
    main()
