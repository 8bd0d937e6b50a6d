"""Text that the sound does not bear out: it is hardly less likely over silence.

Over noise and music Whisper's decoder goes on as a language model does, and is often sure of it ("Thank
you."). What was said is far likelier with its sound than over a window of digital silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.audio import POSITION_S, SAMPLE_RATE
from pipeline.engine.decoding.caches import WholeText, project_memory
from pipeline.engine.decoding.loops import cut_loops
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.model.whisper import Model

# Mean over the tokens of the log of how much likelier the sound makes them. With whisper-base it was at most
# 0.84 in 75 windows of noise, hum, tones and music, and at least 2.67 in 149 of speech.
MIN_GAIN = 1.5
# Text that is asked for its gain: that which the gates do not pass, or where speech is not plain, or little
# for what sounds. A pass of the decoder over the text costs a tenth of its window.
MAX_NO_SPEECH_PROB = 0.2
MIN_TOKENS_PER_S = 1.5


def is_suspect(decoding: Decoding, sounding: Tensor) -> bool:
    """Whether text that passed the gates may yet be invented.

    sounding: bool, one for each 20 ms of the window (`sound.sounding_samples`).
    """
    sounding_s = POSITION_S * int(sounding.sum())
    is_little = len(decoding.tokens) < MIN_TOKENS_PER_S * sounding_s
    return decoding.no_speech_prob > MAX_NO_SPEECH_PROB or is_little


class Silence:
    """A window of digital silence, as one model hears it."""

    def __init__(self, model: Model) -> None:
        features = model.features([np.zeros(SAMPLE_RATE, np.float32)]).to(model.torch_dtype)
        self._model = model
        self._silent = WholeText(memory=project_memory(model.decoder, model.encoder(features)))

    def gains(self, decoding: Decoding) -> tuple[float, ...]:
        """By how much its sound makes each text token of a decoding likelier; of a loop, its first round.

        The decoding's pass has kept its encoder output.
        """
        assert decoding.hidden is not None, "the pass was told to keep its encoder output"
        prompt, tokens = decoding.task.prompt, cut_loops(decoding.tokens, self._model.vocabulary)
        heard = WholeText(memory=project_memory(self._model.decoder, decoding.hidden[None]))
        gains = self._logprobs(prompt, tokens, heard) - self._logprobs(prompt, tokens, self._silent)
        return tuple(gains.tolist())

    def is_unheard(self, decoding: Decoding) -> bool:
        """Whether the sound makes a text hardly likelier."""
        gains = self.gains(decoding)
        return sum(gains) < MIN_GAIN * len(gains)

    def _logprobs(self, prompt: Sequence[int], tokens: Sequence[int], heard: WholeText) -> Tensor:
        row = torch.tensor([[*prompt, *tokens]], device=self._model.device)
        out = self._model.decoder(row, torch.arange(row.shape[1], device=row.device)[None], heard)[0]
        logprobs = self._model.decoder.logits(out[len(prompt) - 1 : -1]).log_softmax(-1)
        return logprobs.gather(1, row[0, len(prompt) :, None]).squeeze(1)
