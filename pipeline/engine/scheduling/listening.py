"""Windows asked what they say of their texts, between the passes of the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.decoding.unheard import Silence
from pipeline.engine.model.whisper import Model
from pipeline.engine.scheduling.passes import Passes
from pipeline.engine.scheduling.work import Work
from pipeline.engine.timing.alignment import Aligner, Spoken, TokenTimes
from pipeline.engine.timing.repetition import is_said_again


class Listening:
    """What is needed to listen to windows with one model. aligner: None where no times are asked for."""

    def __init__(self, model: Model, aligner: Aligner | None, passes: Passes) -> None:
        self.model, self.aligner, self.passes = model, aligner, passes
        self._silence: Silence | None = None

    @property
    def silence(self) -> Silence:
        """Made when a text is first doubted, on the device's thread."""
        if self._silence is None:
            self._silence = Silence(self.model)
        return self._silence

    def to(self, works: Sequence[Work]) -> SoundsOf:
        """What some windows say."""
        return SoundsOf(listening=self, works=works)


@dataclass(frozen=True, kw_only=True)
class SoundsOf:
    """Sounds of some windows (`quality_gates.Sounds`); a decoding without its encoder output is believed."""

    listening: Listening
    works: Sequence[Work]

    def repeats(self, index: int, decoding: Decoding) -> bool:
        """Whether the sound repeats what the text of a window repeats."""
        model, aligner, work = self.listening.model, self.listening.aligner, self.works[index]
        if aligner is None or decoding.hidden is None:
            return False
        is_text = model.vocabulary.is_text
        spoken = Spoken.of(decoding, tuple(filter(is_text, decoding.tokens)), len(work.samples))
        found: list[TokenTimes] = []
        self.listening.passes.run_errand([work], lambda: found.extend(aligner.align([spoken])))
        mel = model.features([work.samples])[0]
        return is_said_again(spoken.tokens, found[0].starts_s, mel.cpu().numpy())

    def bears_out(self, index: int, decoding: Decoding) -> bool:
        """Whether the sound makes the text of a window likelier than silence does."""
        if decoding.hidden is None:
            return True
        found: list[bool] = []

        def ask() -> None:
            found.append(self.listening.silence.is_unheard(decoding))

        self.listening.passes.run_errand([self.works[index]], ask)
        return not found[0]
