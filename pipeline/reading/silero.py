"""silero-vad's network in numpy, for many recordings at once: twice as fast as its own best runtime.

Its convolutions see one frame and its context only, so many frames are one matrix product. Its LSTM runs
over segments side by side, whatever recordings they are of; a long recording is cut into segments of 60 s,
each heard after a run-up of 10 s. Weights come from the ONNX file in
the silero-vad package, which itself is not imported: it imports torch.

Source: `tinygrad_model.py` in silero-vad 6.2 for the layers, `silero_vad_16k_sequence.onnx` for the weights.
BLAS must have one thread (OPENBLAS_NUM_THREADS=1): with two, the many small products cost 4 times the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

FRAME = 512  # samples of a frame
CONTEXT = 64  # samples of the frame before, in front of it
TAIL = 64  # samples mirrored behind it
STATE = 128
SEGMENT_FRAMES = 1875  # 60 s
RUN_UP_FRAMES = 312  # 10 s; probabilities then differ by 0.001 in the mean from those of an endless run
GROUP = 16  # segments side by side; always so many rows, so that none depends on its company
CONVOLVED_TOGETHER = 512  # of the convolutions: what fits the cache

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """Frames `start` to `end` of a recording; `heard_from` is where its run-up starts."""

    recording: int
    heard_from: int
    start: int
    end: int


class SileroNetwork:
    """The network. What it says of a recording does not depend on the recordings beside it."""

    def __init__(self) -> None:
        tensors = read_tensors(_model_file())
        fourier = tensors["stft.forward_basis_buffer"][
            :, 0
        ].T  # [256, 258], Hann window times cosine and sine
        self._cosine = np.ascontiguousarray(fourier[1:129, :129])
        self._sine = np.ascontiguousarray(fourier[1:128, 129:])
        self._kernels = [_kernel(tensors[f"encoder.{i}.weight"]) for i in range(4)]  # [tap, in, out]
        self._biases = [tensors[f"encoder.{i}.bias"] for i in range(4)]
        weights, recurrent, biases = (tensors[name] for name in sorted(n for n in tensors if "LSTM" in n))
        self._gate_weights = np.ascontiguousarray(weights[0].T)  # [128, 512], gates: input output forget cell
        self._recurrent = recurrent[0]  # [512, 128]
        self._gate_bias = biases[0, : 4 * STATE] + biases[0, 4 * STATE :]
        self._output, self._output_bias = tensors["output.weight"][0, :, 0], tensors["output.bias"][0]

    def probabilities(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The probability of speech in every frame of every recording, float32 [frames].

        Args:
            recordings: int16 [frames, 64 + 512]; a frame starts with the end of the one before it.
        """
        found = [np.empty(len(frames), np.float32) for frames in recordings]
        segments = sorted(_segments(recordings), key=lambda segment: segment.heard_from - segment.end)
        for first in range(0, len(segments), GROUP):
            group = segments[first : first + GROUP]
            for segment, values in zip(group, self._hear(group, recordings), strict=True):
                found[segment.recording][segment.start : segment.end] = values
        return found

    def _hear(self, group: Sequence[_Segment], recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The probabilities of a group of segments, which end together: the short ones are born late."""
        lengths = [segment.end - segment.heard_from for segment in group]
        gates = np.zeros((max(lengths), GROUP, 4 * STATE), np.float32)
        for row, segment in enumerate(group):
            frames = recordings[segment.recording][segment.heard_from : segment.end]
            for first in range(0, len(frames), CONVOLVED_TOGETHER):
                block = slice(len(gates) - lengths[row] + first, None)
                encoded = self._encode(frames[first : first + CONVOLVED_TOGETHER] * np.float32(1 / 32768))
                gates[block][: len(encoded), row] = encoded @ self._gate_weights + self._gate_bias
        born_at = np.array([len(gates) - length for length in lengths] + [len(gates)] * (GROUP - len(group)))
        logits = self._recur(gates, born_at)
        return [
            _sigmoid(logits[len(gates) - (segment.end - segment.start) :, row])
            for row, segment in enumerate(group)
        ]

    def _encode(self, frames: np.ndarray) -> np.ndarray:
        """Spectrum and four convolutions, [frames, 576] to [frames, 128]."""
        num = len(frames)
        padded = np.concatenate([frames, frames[:, -2 : -2 - TAIL : -1]], axis=1)
        magnitude = np.zeros((num, 6, 129), np.float32)  # a zero before and after the 4 positions
        magnitude[:, 1:5] = self._spectrum(padded).reshape(num, 4, 129)
        first = np.zeros((num, 5, 128), np.float32)  # a zero before them, none is needed after
        first[:, 1:] = self._convolve(0, _triples(magnitude, (0, 1, 2, 3))).reshape(num, 4, 128)
        hidden = self._convolve(1, _triples(first, (0, 2))).reshape(num, 2 * 64)
        hidden = self._convolve(2, hidden, taps=slice(1, 3))
        return self._convolve(3, hidden, taps=slice(1, 2))

    def _spectrum(self, padded: np.ndarray) -> np.ndarray:
        """Magnitudes of 4 pieces of 256 samples a frame, [frames * 4, 129].

        Cosines are even about sample 128 and sines odd, so each product needs half of the samples.
        """
        pieces = np.lib.stride_tricks.sliding_window_view(padded, 256, axis=1)[:, ::128]  # [frames, 4, 256]
        left, right = pieces[:, :, 1:128], pieces[:, :, :128:-1]
        even = np.empty((*pieces.shape[:2], 128), np.float32)
        np.add(left, right, out=even[:, :, :127])
        even[:, :, 127] = pieces[:, :, 128]
        real = even.reshape(-1, 128) @ self._cosine
        imaginary = (left - right).reshape(-1, 127) @ self._sine
        real *= real
        imaginary *= imaginary
        real += imaginary
        return np.sqrt(real, out=real)

    def _convolve(self, layer: int, inputs: np.ndarray, taps: slice = slice(0, 3)) -> np.ndarray:
        """One layer at given places; `taps` are those of the kernel that do not fall on padding."""
        kernel = self._kernels[layer][taps]
        outputs = inputs @ kernel.reshape(-1, kernel.shape[-1])
        outputs += self._biases[layer]
        return np.maximum(outputs, 0, out=outputs)

    def _recur(self, gates: np.ndarray, born_at: np.ndarray) -> np.ndarray:
        """The LSTM and the output, [steps, GROUP, 512] to [steps, GROUP]; a row starts at its own step.

        Inside, rows are columns: in this order BLAS gives each the same result wherever it stands.
        """
        hidden, cell = (np.zeros((STATE, GROUP), np.float32) for _ in range(2))
        logits = np.empty(gates.shape[:2], np.float32)
        last_birth = born_at[born_at < len(gates)].max()
        for step in range(len(gates)):
            inputs = self._recurrent @ hidden
            inputs += gates[step].T
            sigmoids = _sigmoid(inputs[: 3 * STATE])
            cell *= sigmoids[2 * STATE :]
            cell += sigmoids[:STATE] * np.tanh(inputs[3 * STATE :])
            np.multiply(sigmoids[STATE : 2 * STATE], np.tanh(cell), out=hidden)
            if step < last_birth:
                hidden[:, step < born_at] = cell[:, step < born_at] = 0
            np.matmul(self._output, np.maximum(hidden, 0), out=logits[step])
        return logits + self._output_bias


def _segments(recordings: Sequence[np.ndarray]) -> Iterator[_Segment]:
    for recording, frames in enumerate(recordings):
        for start in range(0, len(frames), SEGMENT_FRAMES):
            yield _Segment(
                recording=recording,
                heard_from=max(0, start - RUN_UP_FRAMES),
                start=start,
                end=min(start + SEGMENT_FRAMES, len(frames)),
            )


def _triples(values: np.ndarray, places: tuple[int, ...]) -> np.ndarray:
    """Three neighbours from each place on, side by side: [n, time, in] to [n * places, 3 * in]."""
    size = values.shape[2]
    return np.stack([values[:, place : place + 3] for place in places], axis=1).reshape(-1, 3 * size)


def _kernel(weight: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(weight.transpose(2, 1, 0))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    result = np.exp(-values)
    result += 1
    return np.reciprocal(result, out=result)


def _model_file() -> Path:
    found = find_spec("silero_vad")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"


# The field numbers of onnx.proto3 that lead to a tensor.
MODEL_GRAPH, GRAPH_INITIALIZER = 7, 5
TENSOR_DIMS, TENSOR_NAME, TENSOR_RAW_DATA = 1, 8, 9


def read_tensors(path: Path) -> Tensors:
    """The float32 initializers of an ONNX file by name.

    Source: onnx.proto3 (ModelProto, GraphProto, TensorProto) and protobuf's wire format.
    """
    tensors: Tensors = {}
    for graph in _field(memoryview(path.read_bytes()), MODEL_GRAPH):
        for tensor in _field(graph, GRAPH_INITIALIZER):
            name = bytes(next(_field(tensor, TENSOR_NAME))).decode()
            shape = [int(size) for size in _field(tensor, TENSOR_DIMS)]
            data = np.frombuffer(next(_field(tensor, TENSOR_RAW_DATA)), np.float32)
            tensors[name] = data.reshape(shape).copy()
    return tensors


def _field(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of one field: its bytes, or for a number a view that `int` can read."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(message, position)
            if number == wanted:
                yield value  # type: ignore[misc]
            continue
        size, position = _varint(message, position) if wire == 2 else ({1: 8, 5: 4}[wire], position)
        if number == wanted:
            yield message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position
