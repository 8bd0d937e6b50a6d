"""Windows in, transcripts out: the engine's only door."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.capacity import batch_size, lanes
from pipeline.engine.decoding import quality_gates
from pipeline.engine.decoding.caches import NO_HEADS
from pipeline.engine.decoding.echoes import echoes_prompt
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.model.snapshot import Snapshot, resolve
from pipeline.engine.model.weights import pick_device, pick_dtype
from pipeline.engine.model.whisper import Model, load_model
from pipeline.engine.options import EngineOptions, check_fits
from pipeline.engine.profile import profile
from pipeline.engine.results import WindowResult
from pipeline.engine.scheduling.listening import Listening
from pipeline.engine.scheduling.passes import Passes
from pipeline.engine.scheduling.work import Pass, Work
from pipeline.engine.sparsify.level import Level
from pipeline.engine.sparsify.sound import is_audible, sounding_samples
from pipeline.engine.timing.alignment import Aligner, Spoken, TokenTimes
from pipeline.engine.transcript import window_result


class Engine:
    """One Whisper model on one device, under one set of options.

    model_name, revision: what was loaded; of a folder the revision is a digest of its content.
    device: `cpu`, or `cuda:` and the card's name. dtype: `float32`, `bfloat16`, `float16` or `int8`.
    languages: codes the model knows, `("en",)` for an English-only model. batch_size: windows decoded side by
    side in a lane (see `EngineOptions.lanes`).
    num_calls: that it is best given at once; on a CPU one for each window that can be in its slots, since
    each waits for its last window, which may be decoded several times. A GPU is given all windows in one.
    conditions_on_text: windows are to be given what was said before them.
    """

    def __init__(self, model: Model, snapshot: Snapshot, options: EngineOptions) -> None:
        _check_fits(options, model)
        self._model, self._options = model, options
        num_lanes, threads = lanes(options, model.device)
        self.batch_size = batch_size(options, model, num_lanes)
        self._level = Level(
            layer=options.sparsify_layer, selector=options.selector, sparsity=options.sparsity
        )
        needs_times = options.word_timestamps or options.timestamps == "alignment"
        self._aligner = Aligner(model, snapshot, of_words=options.word_timestamps) if needs_times else None
        # A word's probability takes another pass, which listens by itself.
        heads = self._aligner.heads if self._aligner and not options.word_timestamps else NO_HEADS
        self._passes = Passes(
            model,
            options,
            batch_size=self.batch_size,
            num_lanes=num_lanes,
            threads=threads,
            heads=heads,
        )
        self.num_calls = 1 if model.device.type == "cuda" else self.batch_size * num_lanes
        self._listening = Listening(model, self._aligner, self._passes)
        self.model_name, self.revision = snapshot.name, snapshot.revision
        self.device = _device_name(model.device)
        self.dtype = model.dtype
        self.conditions_on_text = options.condition_on_previous_text
        self.is_multilingual = model.vocabulary.is_multilingual
        self.languages = model.vocabulary.language_codes

    @classmethod
    def load(
        cls,
        model: str | Path | Snapshot,
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        options: EngineOptions = EngineOptions(),  # noqa: B008 - frozen
    ) -> Engine:
        """Loads a model of the Whisper family.

        model: a folder, a `.pt` of openai-whisper, `demo` for the bundled model, a name on the hub, or a
        model whose files were found.
        device: auto, cpu, cuda or cuda:N.
        dtype: float32, bfloat16, float16, int8 (linear maps; x86 CPUs) or auto (bfloat16 on CUDA, float32 on
        a CPU).
        Raises ModelNotFound for a model that is not there or not Whisper, ValueError for an option that the
        device or the model cannot do.
        """
        chosen = pick_device(device)
        snapshot = model if isinstance(model, Snapshot) else resolve(model, revision=revision)
        return cls(load_model(snapshot, device=chosen, dtype=pick_dtype(dtype, chosen)), snapshot, options)

    @torch.inference_mode()
    def transcribe(
        self,
        windows: Sequence[np.ndarray],
        *,
        languages: Sequence[str | None] | None = None,
        are_guesses: bool = False,
        seeds: Sequence[int] | None = None,
        levels: Level | Sequence[Level | None] | None = None,
        prompts: Sequence[str | None] | None = None,
    ) -> list[WindowResult]:
        """Transcribes windows of at most 30 s; results in the same order.

        Any number of threads may call at once: their windows are decoded side by side.

        windows: float32 in -1..1 or int16, mono, 16 kHz; one without sound or under 0.1 s gives "".
        languages: a code per window, None to detect it. are_guesses: a window that fails the quality gates is
        asked for its own language before anything else is tried.
        seeds: a number per window, for draws at temperatures above 0, so that a window's result does not
        depend on its company.
        levels: how sparse each window is, or all of them; None is what the engine's options say.
        prompts: what is put before each window as if it had been said; None is what the engine's options say.
        Raises ValueError for a window, a language, a level or a prompt that the model cannot take.
        """
        works = self._works(windows, languages, seeds, prompts)
        chosen = self._levels(levels, len(works))
        heard = [n for n, work in enumerate(works) if is_audible(work.samples)]
        audible = [works[n] for n in heard]
        settled = self._settle([(works[n], chosen[n]) for n in heard], are_guesses=are_guesses)
        times = self._times(audible, settled)
        made = (self._result(*one) for one in zip(audible, settled, times, strict=True))
        results = dict(zip(heard, made, strict=True))
        return [results.get(n) or WindowResult.empty(work.language) for n, work in enumerate(works)]

    @property
    def peak_memory_bytes(self) -> int:
        """The most that this process has held: of a card what it allocated there, on a CPU all of it."""
        device = self._model.device
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def give_up(self) -> None:
        """Ends the calls of all threads with `GivenUp`, and every later one: the process is to end."""
        self._passes.give_up()

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Runs a few steps of every pass, so that the first window pays for no set-up."""
        size = min(2, self.batch_size)
        works = self._works([np.zeros(SAMPLE_RATE, np.float32)] * size, None, None)
        self._passes.run(works, Pass(level=self._level, max_new_tokens=4))

    def profile(
        self, windows: Sequence[np.ndarray], *, level: Level, language: str | None = None
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds that each of `profile.OPERATIONS` takes for windows side by side, dense and at a level.

        level: one with a sparsity. language: None to detect it. Nothing else may use the device meanwhile.
        Raises ValueError for a window, a language or a level that the model cannot take.
        """
        self._check_level(level)
        works = self._works(windows, [language] * len(windows), None)
        samples, code = [work.samples for work in works], works[0].language
        return (
            profile(self._model, samples, level=None, language=code, layer=level.layer),
            profile(self._model, samples, level=level, language=code, layer=level.layer),
        )

    def _settle(
        self, windows: Sequence[tuple[Work, Level | None]], *, are_guesses: bool
    ) -> list[quality_gates.Settled]:
        works = [work for work, _ in windows]
        keeps = self._aligner is not None
        first = self._passes.run(works, [Pass(level=level, keeps_hidden=keeps) for _, level in windows])
        for work, decoding in zip(works, first, strict=True):
            work.kept = None if decoding.kept is None else tuple(decoding.kept.tolist())

        def retry(indices: Sequence[int], temperatures: Sequence[float]) -> list[Decoding]:
            failing = [works[index] for index in indices]
            for work, temperature in zip(failing, temperatures, strict=True):
                if temperature == 0 and (are_guesses or work.language_probability is not None):
                    work.language = self._language(None)  # what a dense pass hears
            for index in echoes.intersection(indices):
                works[index].previous = ()
            before = [work.device_s for work in failing]
            done = self._passes.run(failing, [Pass(temperature=t, keeps_hidden=True) for t in temperatures])
            for work, device_s in zip(failing, before, strict=True):
                work.retry_device_s += work.device_s - device_s
            return done

        echoes = {n for n, one in enumerate(first) if echoes_prompt(one, self._model.vocabulary)}
        total = self._model.shape.source_positions
        sounding = [sounding_samples(work.samples) for work in works]
        return quality_gates.settle(
            first,
            retry,
            self._model.vocabulary,
            num_positions=total,
            sounding=sounding,
            floors=[None if level is None else level.min_logprob for _, level in windows],
            asks_languages=are_guesses and self.is_multilingual,
            sounds=self._listening.to(works),
        )

    def _times(
        self, works: Sequence[Work], settled: Sequence[quality_gates.Settled]
    ) -> Sequence[TokenTimes | None]:
        """The times of each window's tokens; None where they were not asked for or there are no tokens."""
        aligner = self._aligner
        spoken = [n for n, one in enumerate(settled) if one.tokens and not one.is_silent]
        if aligner is None or not spoken:
            return [None] * len(works)
        times: dict[int, TokenTimes] = {}

        def align(numbers: Sequence[int]) -> None:
            found = [settled[n] for n in numbers]
            texts = [
                Spoken.of(one.decoding, one.tokens, len(works[n].samples))
                for n, one in zip(numbers, found, strict=True)
            ]
            times.update(zip(numbers, aligner.align(texts), strict=True))

        parts = [spoken[lane :: self._passes.num_lanes] for lane in range(self._passes.num_lanes)]
        self._passes.run_errands([([works[n] for n in part], partial(align, part)) for part in parts if part])
        return [times.get(n) for n in range(len(works))]

    def _levels(self, levels: Level | Sequence[Level | None] | None, num_windows: int) -> list[Level | None]:
        each = [levels] * num_windows if levels is None or isinstance(levels, Level) else list(levels)
        if len(each) != num_windows:
            raise ValueError(f"levels has {len(each)} entries for {num_windows} windows")
        for level in {level for level in each if level is not None}:
            self._check_level(level)
        return [self._level if level is None else level for level in each]

    def _check_level(self, level: Level) -> None:
        level.check(num_layers=self._model.shape.encoder_layers)

    def _works(
        self,
        windows: Sequence[np.ndarray],
        languages: Sequence[str | None] | None,
        seeds: Sequence[int] | None,
        prompts: Sequence[str | None] | None = None,
    ) -> list[Work]:
        codes = [None] * len(windows) if languages is None else list(languages)
        numbers = [0] * len(windows) if seeds is None else list(seeds)
        texts = [None] * len(windows) if prompts is None else list(prompts)
        for name, values in (("languages", codes), ("seeds", numbers), ("prompts", texts)):
            if len(values) != len(windows):
                raise ValueError(f"{name} has {len(values)} entries for {len(windows)} windows")
        for window in windows:
            self._check_window(window)
        return [
            Work(
                samples=window,
                seed=seed,
                language=self._language(code),
                previous=self._passes.encode_prompt(text),
            )
            for window, code, seed, text in zip(windows, codes, numbers, texts, strict=True)
        ]

    def _result(self, work: Work, settled: quality_gates.Settled, times: TokenTimes | None) -> WindowResult:
        return window_result(work, settled, times, self._model, self._options)

    def _check_window(self, window: np.ndarray) -> None:
        if window.dtype not in (np.float32, np.int16) or window.ndim != 1:
            raise ValueError(
                f"a window is {window.dtype} with {window.ndim} dimensions; it may be mono float32 or int16"
            )
        if len(window) > self._model.features.max_samples:
            limit_s = self._model.features.max_samples / SAMPLE_RATE
            raise ValueError(f"a window is {len(window) / SAMPLE_RATE:.2f} s long; it may be {limit_s:g} s")

    def _language(self, code: str | None) -> str | None:
        if code is not None and code not in self.languages:
            raise ValueError(f"language is {code!r}; the model knows {', '.join(self.languages)}")
        return code if self.is_multilingual else "en"


def _check_fits(options: EngineOptions, model: Model) -> None:
    check_fits(
        sparsify_layer=options.sparsify_layer,
        language=None,
        task=options.task,
        num_layers=model.shape.encoder_layers,
        languages=model.vocabulary.language_codes,
        tasks=model.vocabulary.task_names,
    )


def _device_name(device: torch.device) -> str:
    return f"cuda:{torch.cuda.get_device_name(device)}" if device.type == "cuda" else "cpu"
