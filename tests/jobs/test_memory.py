"""The memory of a command's threads."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from jobs import cli

ARENAS = """
import ctypes, sys, threading
from jobs import cli
if sys.argv[2] == "shared":
    cli._share_memory()
libc = ctypes.CDLL(None)
together = threading.Barrier(7)
def take():
    together.wait()
    libc.malloc(100)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(7)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_a_few_arenas(tmp_path):
    found = {}
    for kind in ("own", "shared"):
        path = tmp_path / kind
        subprocess.run([sys.executable, "-c", ARENAS, path, kind], check=True, timeout=60)
        found[kind] = path.read_text().count("<heap nr=")
    assert found["shared"] == min(cli.NUM_ARENAS, os.cpu_count()) < found["own"]


def test_another_c_library_gives_memory_as_it_does(monkeypatch):
    monkeypatch.setattr(cli.ctypes, "CDLL", lambda _: object())
    cli._share_memory()
