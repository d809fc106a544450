"""Batch and shard sizes that a plan leaves open, chosen once from a short measurement."""

import gc
import logging
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import torch

from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.backmapping.source import SourceSystem
from hpcbackmap.runtime.allocator import give_back_memory

__all__ = ["choose_batch", "choose_shard", "seconds_per_frame"]

log = logging.getLogger(__name__)

RESET_PEAK = "5"
"""What Linux takes as: the peak of resident memory is what is resident now."""
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
GAIN = 1.05
"""A larger batch has to be faster by so much."""
MEMORY_SHARE = 0.5
"""Of a device's free memory, or of a rank's share of the node's, that a batch may take."""
SHARD_SECONDS = 120.0
SHARD_BYTES = 256e6
"""Most that the arrays of one shard may hold; a rank has them in memory until it writes."""
SHARDS_PER_RANK = 16
"""At least, so that waiting for the last one costs a few percent (benchmarks/throughput/driver/scale.py)."""


def choose_batch(
    chain: Chain,
    system: SourceSystem,
    resolution: str,
    local: list[int],
    members: list[int | None],
    ranks: int,
) -> tuple[int, float]:
    """(frames per batch, seconds per frame): the smallest batch within 5 % of the fastest that fits.

    system: where the frames ``local`` are; the first of them are backmapped and thrown away.
    """
    best, fastest = 1, np.inf
    limit = MEMORY_SHARE * _free_bytes(chain.device) / ranks
    for batch in BATCHES:
        if batch > len(local):
            break
        coarse = np.nan_to_num(system.read_at(resolution, local[:batch]))
        seconds, taken = _measure(chain, coarse, members)
        if taken > limit:
            break
        if seconds / batch * GAIN < fastest:
            best, fastest = batch, seconds / batch
        elif batch >= 4 * best:
            break
    return best, fastest


def seconds_per_frame(
    chain: Chain,
    system: SourceSystem,
    resolution: str,
    local: list[int],
    members: list[int | None],
) -> float:
    """Of one batch of frames ``local``, which is backmapped and thrown away."""
    coarse = np.nan_to_num(system.read_at(resolution, local))
    return _measure(chain, coarse, members)[0] / len(local)


def choose_shard(seconds: float, frame_bytes: int, batch: int, frames: int, ranks: int) -> int:
    """Frames per shard, whole batches: two minutes of work, less for memory or to keep all ranks busy.

    seconds, frame_bytes: of all structures of one frame.
    """
    most = min(
        SHARD_SECONDS / max(seconds, 1e-9),
        SHARD_BYTES / frame_bytes,
        frames / (SHARDS_PER_RANK * ranks),
    )
    found: int = batch * max(1, 2 ** int(np.log2(max(1.0, most / batch))))
    return found


def _measure(chain: Chain, coarse: np.ndarray, members: list[int | None]) -> tuple[float, float]:
    """Seconds of the faster of two runs, and bytes that it took at most beyond what was held before."""
    frames = list(range(len(coarse)))
    gc.collect()
    before, best = _reset_peak(chain.device), np.inf
    for _ in range(2):
        begun = time.perf_counter()
        chain.run_members(coarse.astype(np.float32), frames, members, seed=0)
        best = min(best, time.perf_counter() - begun)
    return best, max(0.0, _peak_bytes(chain.device) - before)


def _reset_peak(device: torch.device) -> float:
    """Bytes held now; the peak counts from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    give_back_memory()
    with suppress(
        OSError
    ):  # another system than Linux, or a closed /proc: the peak is that of the process
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    found: float = psutil.Process().memory_info().rss
    return found


def _peak_bytes(device: torch.device) -> float:
    """Most bytes held since `_reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    found: float = psutil.Process().memory_info().rss
    return found


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found: float = psutil.virtual_memory().available
    return found
