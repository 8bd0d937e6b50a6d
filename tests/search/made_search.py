"""A search over an engine whose texts shrink with sparsity."""

from __future__ import annotations

from pipeline.config import JobOptions
from pipeline.engine.sparsify.level import Level
from pipeline.results.evaluation import Truth
from pipeline.search.driver import SearchResult
from pipeline.search.settings import Setting
from pipeline.search.trial_schema import SHARD_TRIALS
from pipeline.search.try_shard import SearchEngines, try_shard
from tests.fakes import FakeEngine, audio_table, read_recording, result

HALF = Level(layer=2, sparsity=0.5)
DENSE = (Setting(level=None), Setting(level=None, is_shifted=True))
DENSE_TEXT = "the heron slept beside a river under tall green trees"


class Levelled(FakeEngine):
    """Says less the sparser it is, at the price of the positions that it keeps."""

    def transcribe(self, windows, *, languages=None, are_guesses=False, seeds=None, levels=None):
        self.calls.append((list(windows), levels))
        words = DENSE_TEXT.split()
        if levels is None:
            return [result(DENSE_TEXT, device_s=1.0) for _ in windows]
        sparsity = levels.sparsity
        kept = tuple(range(round(1500 * (1 - sparsity))))
        text = " ".join(words[: round(len(words) * (1.2 - sparsity))])
        return [result(text, device_s=1 - sparsity, kept=kept, kept_positions=len(kept)) for _ in windows]


def shard(num=3, *, seconds=4.0):
    recordings = [read_recording(f"{n}.wav", duration_s=seconds) for n in range(num)]
    return audio_table(recordings, [(n, 0.0, seconds, [(0.0, seconds / 2)]) for n in range(num)])


def tried(levels, *, num=3):
    """The rows of a search over levels, with its settings."""
    chosen = [*DENSE, *(Setting(level=level) for level in levels)]
    table = try_shard(shard(num), SearchEngines(engines={None: Levelled()}, settings=chosen), language="en")
    return chosen, table.cast(SHARD_TRIALS).to_pylist()


def found(levels, **changes):
    chosen, rows = tried(levels, **changes)
    options = JobOptions(model="demo", model_revision="r", dtype="float32", engine_version="1")
    truths = {f"{n}.wav": Truth(text=DENSE_TEXT, language="en") for n in range(changes.get("num", 3))}
    return SearchResult(options=options, settings=chosen, left_out=(), rows=rows, truths=truths, speech={})
