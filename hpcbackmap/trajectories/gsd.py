"""GSD files of HOOMD-blue, through the optional package gsd: particles of any kind, in boxes.

GSD knows no unit of length and no time; lengths are taken as nm, and a frame's time is its step.
"""

from collections.abc import Iterator
from typing import Any

import mdtraj
import numpy as np

from hpcbackmap.trajectories.text import suffix_of

__all__ = ["frame_count", "gsd_topology", "is_gsd", "read_gsd"]


def is_gsd(path: str) -> bool:
    return suffix_of(path) == ".gsd"


def frame_count(path: str) -> int:
    with _open(path) as file:
        return len(file)


def gsd_topology(path: str) -> mdtraj.Topology:
    """One residue of one atom per particle, both named by its type; molecules (joined by bonds) are chains."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    with _open(path) as file:
        frame = file[0]
    count = frame.particles.N
    bonds = np.zeros((0, 2), dtype=int) if frame.bonds.group is None else frame.bonds.group
    graph = coo_array((np.ones(len(bonds)), tuple(bonds.T)), shape=(count, count))
    molecule = connected_components(graph, directed=False)[1]
    if len(bonds) == 0:
        molecule[:] = 0
    topology = mdtraj.Topology()
    chains = {number: topology.add_chain() for number in dict.fromkeys(molecule.tolist())}
    for particle, kind in enumerate(frame.particles.typeid):
        name = frame.particles.types[kind]
        residue = topology.add_residue(name, chains[int(molecule[particle])], particle + 1)
        topology.add_atom(name, mdtraj.element.virtual, residue, particle + 1)
    return topology


def read_gsd(path: str, start: int, stop: int, size: int) -> Iterator[tuple[Any, ...]]:
    """Pieces of up to ``size`` frames: positions float32 [n, N, 3], steps float64 [n], cells [n, 3, 3]."""
    with _open(path) as file:
        for first in range(start, min(stop, len(file)), size):
            frames = [file[i] for i in range(first, min(first + size, stop, len(file)))]
            yield (
                np.stack([frame.particles.position for frame in frames]).astype(np.float32),
                np.array([frame.configuration.step for frame in frames], dtype=np.float64),
                np.stack([_cell(frame.configuration.box) for frame in frames]),
            )


def _cell(box: np.ndarray | None) -> np.ndarray:
    """Rows are vectors; zero without a box."""
    x, y, z, xy, xz, yz = np.zeros(6) if box is None else np.asarray(box, dtype=np.float64)
    return np.array([[x, 0, 0], [xy * y, y, 0], [xz * z, yz * z, z]])


def _open(path: str) -> Any:
    import gsd.hoomd

    return gsd.hoomd.open(str(path), "r")
