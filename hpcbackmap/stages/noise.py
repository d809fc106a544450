"""Noise as a pure function of (seed, stage, frame, member): no rank, batch or restart can change it."""

import hashlib
from typing import NamedTuple

import numpy as np

__all__ = ["INDEPENDENT", "Coherence", "frame_noise"]


class Coherence(NamedTuple):
    """How alike the noise of frames is that follow one another.

    frames: so many apart, two are correlated by 1/6, twice as many apart not at all; 1: each on its own.
    step: between the global indices of frames that follow one another.
    """

    frames: int = 1
    step: int = 1

    @property
    def weights(self) -> np.ndarray:
        """Of the white noises of the frames around one, float32 [2 frames - 1]: a Hann window whose squares
        add up to 1, so that their sum has the variance of each.
        """
        offsets = np.arange(1 - self.frames, self.frames)
        window = np.square(np.cos(np.pi * offsets / (2 * self.frames)))
        found: np.ndarray = (window / np.sqrt(np.square(window).sum())).astype(np.float32)
        return found


INDEPENDENT = Coherence()


def frame_noise(
    seed: int,
    stage: str,
    frames: list[int],
    member: int,
    n_beads: int,
    width: int,
    coherence: Coherence = INDEPENDENT,
) -> np.ndarray:
    """Standard normals, float32 [F, n_beads, width], for global frame indices ``frames``.

    White noise is counter-based (Philox; Salmon et al. 2011): the key is a hash of seed, stage and member, the
    counter starts at the frame. With ``coherence`` that of the frames around is added up, each computed once;
    a frame has the same noise whatever others are asked for.
    """
    text = f"{seed}/{stage}/{member}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")

    def white(frame: int) -> np.ndarray:
        counter = np.array([0, 0, frame % 2**64, 0], np.uint64)  # coherence reaches before frame 0
        bits = np.random.Philox(key=key, counter=counter)
        return np.random.Generator(bits).standard_normal((n_beads, width), dtype=np.float32)

    noise = np.zeros((len(frames), n_beads, width), dtype=np.float32)
    if coherence.frames == 1:
        for row, frame in enumerate(frames):
            noise[row] = white(int(frame))
        return noise
    reach = coherence.step * (coherence.frames - 1)
    rows: dict[int, list[tuple[int, np.float32]]] = {}
    for row, frame in enumerate(frames):
        around = range(int(frame) - reach, int(frame) + reach + 1, coherence.step)
        for other, weight in zip(around, coherence.weights, strict=True):
            rows.setdefault(other, []).append((row, weight))
    for other in sorted(rows):  # the order of a sum must not hang on what else is asked for
        drawn = white(other)
        for row, weight in rows[other]:
            noise[row] += weight * drawn
    return noise
