"""How well the stream mixes: distances in the store between frames of a batch, beside a random permutation.

python benchmarks/throughput/mixing.py            a Markdown table, in seconds; nothing is read
"""

from itertools import islice, product

import numpy as np

from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.stream import FrameStream

BUDGETS_MB = (32, 256)
BATCHES = (8, 32, 128)
NEAR = 128
"""Frames of a block of 214 residues at the default budget."""


class Imagined:
    """Stands in for a store of one system of 214 residues; its positions are the numbers of the frames."""

    path, first_frame, n_frames = "imagined", 0, 200_000

    def system(self, name: str) -> "Imagined":
        return self

    def block_frames(self, level: str) -> int:
        return 32

    def n_particles(self, level: str) -> int:
        return {"fg": 1656, "ca": 214}[level]

    def read_together(self, pieces: list[tuple]) -> list[np.ndarray]:
        return [np.empty((stop - start, 0, 3), np.float32) for _, _, start, stop in pieces]


def mixing() -> list[str]:
    """Distance in the store between frames of a batch, as a share of the store."""
    n_frames = Imagined.n_frames
    lines = [
        f"{n_frames} frames of 214 residues; distance of two frames of a batch / frames of the store.",
        "",
        f"| budget MB | batch | 10 % | 25 % | 50 % | 75 % | 90 % | within {NEAR} frames | side by side |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for budget, batch in product(BUDGETS_MB, BATCHES):
        whole = [FrameRange("p", 0, n_frames)]
        flow = FrameStream(Imagined(), whole, "fg", "ca", batch, 0, 0, 1, budget)
        batches = [next_batch.frames for next_batch in islice(flow, n_frames // batch)]
        lines.append(f"| {budget} | {batch} | {distances(np.stack(batches), n_frames)} |")
    permutation = np.random.default_rng(0).permutation(n_frames).reshape(-1, 32)
    lines.append(f"| random permutation | 32 | {distances(permutation, n_frames)} |")
    return lines


def distances(batches: np.ndarray, n_frames: int) -> str:
    """Table cells. batches: [batches, frames]."""
    mixed = np.random.default_rng(0).permuted(batches, axis=1)
    any_two, beside = (np.abs(np.diff(order, axis=1)).ravel() for order in (mixed, batches))
    cells = [f"{np.percentile(any_two, p) / n_frames:.3f}" for p in (10, 25, 50, 75, 90)]
    near = [f"{100 * np.mean(apart < NEAR):.1f} %" for apart in (any_two, beside)]
    return " | ".join(cells + near)


if __name__ == "__main__":
    print("\n".join(mixing()))
