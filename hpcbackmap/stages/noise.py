"""Noise as a pure function of (seed, stage, frame, member): no rank, batch or restart can change it."""

import hashlib

import numpy as np

__all__ = ["frame_noise"]


def frame_noise(
    seed: int, stage: str, frames: list[int], member: int, n_beads: int, width: int
) -> np.ndarray:
    """Standard normals, float32 [F, n_beads, width], for global frame indices ``frames``.

    Counter-based (Philox; Salmon et al. 2011): the key is a hash of seed, stage and member, the counter
    starts at the frame.
    """
    text = f"{seed}/{stage}/{member}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    noise = np.empty((len(frames), n_beads, width), dtype=np.float32)
    for row, frame in enumerate(frames):
        bits = np.random.Philox(key=key, counter=[0, 0, int(frame), 0])
        noise[row] = np.random.Generator(bits).standard_normal((n_beads, width), dtype=np.float32)
    return noise
