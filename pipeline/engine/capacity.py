"""How much an engine takes on at a time: lanes, their threads, and the windows of each."""

from __future__ import annotations

import torch

from pipeline.engine.decoding.memory import bytes_of_number
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import EngineOptions, require

# A job with whisper-base in int8: 16 take 0.94 of the CPU time of 8; 24 take 0.97 of that of 16, as do 32.
CPU_BATCHES = (4, 24)
CPU_CACHE_BYTES = 2 << 30  # of all lanes, where they have more than the fewest
MAX_AUTO_LANES = 4  # they share one interpreter
MAX_AUTO_BATCH = 64  # an H200 gained 12 % from 64 to 256 with large-v3, where all windows were there at once
AUTO_MEMORY_SHARE = 0.6


def batch_size(options: EngineOptions, model: Model, num_lanes: int) -> int:
    """The slots of a lane; for `auto` on a GPU as many windows as fit into its free memory."""
    if options.batch_size != "auto":
        return options.batch_size
    shape, size = model.shape, model.torch_dtype.itemsize
    past, kept = options.beam_size * shape.target_positions * size, model.memory_dtype.itemsize
    memory = shape.source_positions * bytes_of_number(options.memory_dtype, kept, shape.decoder_head_dim)
    caches = 2 * shape.decoder_layers * shape.dim * (past + memory)
    if model.device.type != "cuda":
        fewest, most = CPU_BATCHES
        return max(fewest, min(most, int(CPU_CACHE_BYTES / num_lanes / caches)))
    activations = 16 * shape.source_positions * shape.dim * size  # a layer's qkv, MLP and copies of the input
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(MAX_AUTO_BATCH, int(AUTO_MEMORY_SHARE * free / (caches + activations))))


def lanes(options: EngineOptions, device: torch.device) -> tuple[int, int | None]:
    """How many lanes the device has, and the threads of each on a CPU (None: a GPU). Raises WrongValue."""
    if device.type == "cuda":
        require(options.lanes in ("auto", 1), "lanes", options.lanes, "'auto' or 1 on a GPU")
        return 1, None
    threads = torch.get_num_threads()
    number = min(MAX_AUTO_LANES, threads) if options.lanes == "auto" else options.lanes
    return number, max(1, threads // number)
