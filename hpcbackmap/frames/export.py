"""From a frame store to trajectory files that other programs read."""

from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.errors import ConfigError, InputError
from hpcbackmap.frames.store import FrameStore
from hpcbackmap.frames.system import StoredSystem
from hpcbackmap.frames.writer import TrajectoryWriter, require_suffix

__all__ = ["export"]

PIECE_BYTES = 8e6
"""Coordinates that are held at a time."""


def export(
    store: FrameStore,
    resolution: str,
    output: str | Path,
    system: str | None = None,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
) -> int:
    """Write frames ``start``, ``start + stride``, … before ``stop`` as XTC, DCD or multi-model PDB.

    system: may be left out if the store holds one. A PDB of one frame is a topology for the other two.
    Heavy atoms and C-alpha have their names; beads are called CG in residues BEA, one each.
    Returns the number of frames written. The file appears under its name when it is whole.
    Raises ConfigError for an unknown suffix or no system, InputError for frames that do not exist,
    OutputError if the file cannot be written.
    """
    output = Path(output)
    require_suffix(output)
    if system is None and len(store.systems) > 1:
        raise ConfigError(
            f"{store.path}: holds {', '.join(store.systems)}; say which system to export"
        )
    stored = store.system(store.systems[0] if system is None else system)
    stored.n_particles(resolution)
    stop = stored.n_frames if stop is None else stop
    if not 0 <= start < stop <= stored.n_frames:
        raise InputError(
            f"{store.path}: system {stored.name} has frames 0 to {stored.n_frames - 1}, "
            f"not {start} to {stop - 1}"
        )
    frames = range(start, stop, stride)
    times = "time" in stored.observables
    size = max(1, int(PIECE_BYTES / (12 * stored.n_particles(resolution)))) * stride
    with TrajectoryWriter(output, _topology(stored, resolution)) as file:
        for first in range(start, stop, size):
            last = min(stop, first + size)
            positions = stored.read(resolution, first, last)[::stride]
            numbers = np.arange(first, last)[::stride]
            time = stored.read_observable("time", first, last)[::stride] if times else numbers
            file.append(positions, numbers, time)
    return len(frames)


def _topology(stored: StoredSystem, resolution: str) -> mdtraj.Topology:
    if resolution in ("fg", "ca"):
        return stored.ladder.topology.to_mdtraj(resolution)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for bead in range(stored.n_particles(resolution)):
        residue = topology.add_residue("BEA", chain, resSeq=bead + 1)
        topology.add_atom("CG", mdtraj.element.carbon, residue)
    return topology
