"""Long trajectories of the 20-residue example: its frames over and over, each moved a little."""

from pathlib import Path

import mdtraj
import numpy as np

EXAMPLE = Path(__file__).parents[1] / "examples" / "trpcage"
NOISE = 0.005
"""nm"""
PIECE = 10_000


def write_trajectory(path: Path, frames: int, seed: int = 0) -> None:
    """An XTC file, unless it is there."""
    if path.exists():
        return
    example = mdtraj.load(str(EXAMPLE / "trpcage.xtc"), top=str(EXAMPLE / "trpcage_top.pdb")).xyz
    rng = np.random.default_rng(seed)
    scratch = path.with_suffix(".part.xtc")
    with mdtraj.formats.XTCTrajectoryFile(str(scratch), "w") as file:
        for first in range(0, frames, PIECE):
            numbers = np.arange(first, min(first + PIECE, frames))
            moved = example[numbers % len(example)]
            moved = moved + NOISE * rng.standard_normal(moved.shape, dtype=np.float32)
            file.write(moved.astype(np.float32), time=numbers.astype(np.float32), step=numbers)
    scratch.rename(path)
