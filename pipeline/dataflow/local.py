"""The stages in this process, a shard after the other, for jobs too small to start a Ray for.

The next shard is read while the model works on the one before. As in the graph, errors are not raised: what a
pass did not commit, the driver finds missing and gives to the next one. What kills this process kills the
job, and the same command resumes it: its attempts were marked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue

import pyarrow as pa

from pipeline.dataflow.stages import RoundContext, read_shard
from pipeline.errors import one_line
from pipeline.schema import SHARD_PLAN

log = logging.getLogger("earshard")


def run_round(units: Sequence[pa.Table], this_round: RoundContext) -> Iterator[pa.Table]:
    """One pass over units of work (`SHARD_PLAN` rows). Yields the markers of shards as they are committed.

    Raises what making the engine raises.
    """
    with closing(_ReadAhead(units, this_round)) as shards:
        work = this_round.work(this_round)
        for audio in shards:
            try:
                marker = this_round.commit(work(audio), this_round=this_round)
            except Exception as error:
                log.warning("%s: %s", type(error).__name__, one_line(error))
                continue
            if marker.num_rows:
                yield marker


class _ReadAhead:
    """Rows of `SHARD_AUDIO`, the next one read in a thread while the last is worked on.

    Where one has been attempted before, none is read meanwhile: what it may do to this process would count
    against that one too. The thread is a daemon: a job that is stopped does not wait for it.
    """

    def __init__(self, units: Sequence[pa.Table], this_round: RoundContext) -> None:
        self._units, self._round = units, this_round
        self._found: SimpleQueue[pa.Table | Exception | None] = SimpleQueue()
        first_attempts = all(unit.column("attempt")[0].as_py() == 1 for unit in units)
        self._wanted = threading.Semaphore(2 if first_attempts else 1)
        self._closed = False
        threading.Thread(target=self._read, name="read-ahead", daemon=True).start()

    def _read(self) -> None:
        for unit in self._units:
            self._wanted.acquire()
            if self._closed:
                return
            try:
                self._found.put(read_shard(unit.cast(SHARD_PLAN), self._round))
            except Exception as error:
                self._found.put(error)
        self._found.put(None)

    def __iter__(self) -> Iterator[pa.Table]:
        while (audio := self._found.get()) is not None:
            if isinstance(audio, Exception):
                log.warning("%s: %s", type(audio).__name__, one_line(audio))
            else:
                yield audio
            self._wanted.release()

    def close(self) -> None:
        """Read no further."""
        self._closed = True
        self._wanted.release()
