"""What stands beside the protein in the input, passed through as it is: nucleic acids, ligands, lipids, water.

Shapes: F frames, P particles of the file, K of them kept; positions nm.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hpcbackmap.resolution.representations.reading import Reading
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.trajectories.particles import Particles

if TYPE_CHECKING:
    import mdtraj

__all__ = ["Others", "others_of"]


@dataclass(frozen=True, eq=False)
class Others:
    """rows: of the kept particles in a frame of the file, int64 [K], residue by residue. particles: all names
    of the file.
    """

    rows: np.ndarray
    particles: Particles

    @cached_property
    def counts(self) -> dict[str, int]:
        """Particles by the name of their residue."""
        residues = self.particles.residue[self.rows].tolist()
        return dict(Counter(self.particles.residues[i].name for i in residues))

    @cached_property
    def n_residues(self) -> int:
        return len(np.unique(self.particles.residue[self.rows]))

    @cached_property
    def _chains(self) -> list[np.ndarray]:
        """Which of the kept particles each chain has."""
        residues = self.particles.residue[self.rows].tolist()
        chain = np.array([self.particles.residues[i].chain for i in residues], dtype=np.int64)
        return [np.flatnonzero(chain == each) for each in np.unique(chain)]

    def beside(self, topology: "mdtraj.Topology") -> "mdtraj.Topology":
        """``topology`` with these particles after its own, in chains of their own."""
        import mdtraj

        whole, particles = topology.copy(), self.particles
        for old, new in zip(topology.residues, whole.residues, strict=True):
            new.insertion = getattr(old, "insertion", "")
        chains, residues = {}, {}
        for row in self.rows.tolist():
            number = int(particles.residue[row])
            residue = particles.residues[number]
            if residue.chain not in chains:
                chains[residue.chain] = whole.add_chain()
                chains[residue.chain].chain_id = particles.chains[residue.chain].id
            if number not in residues:
                chain = chains[residue.chain]
                residues[number] = whole.add_residue(residue.name, chain, resSeq=residue.number)
                residues[number].insertion = residue.insertion
            symbol = particles.elements[row]
            element = mdtraj.element.get_by_symbol(symbol) if symbol else mdtraj.element.virtual
            whole.add_atom(particles.names[row], element, residues[number])
        return whole

    def positions(
        self, frames: np.ndarray, cells: np.ndarray | None, centre: np.ndarray
    ) -> np.ndarray:
        """Of frames [F, P, 3] as the file has them: [F, K, 3].

        cells: [F, 3, 3] or None. Where there is a box, each chain is moved by whole edges of it so that its
        first particle is as near to ``centre`` [F, 3], that of the protein, as one can be.
        """
        kept = frames[:, self.rows].astype(np.float32)
        if cells is None:
            return kept
        for place, cell in enumerate(cells):
            if not cell.any():
                continue
            inverse = np.linalg.inv(cell)
            for rows in self._chains:
                edges = np.round((centre[place] - kept[place, rows[0]]) @ inverse)
                kept[place, rows] += (edges @ cell).astype(np.float32)
        return kept


def others_of(
    particles: Particles, chosen: np.ndarray, reading: Reading, kept: bool, path: str
) -> Others | None:
    """What of the ``chosen`` particles belongs to no residue that ``reading`` reads; None if not ``kept``.

    Raises ConfigError for beads of several residues, whose residues are not those of the file.
    """
    if not kept:
        return None
    if "bead_of" in reading.sites:
        raise ConfigError(f"{path}: --keep-others: not with beads of several residues")
    sites = [rows.ravel() for name, rows in reading.sites.items() if name != "calpha"]
    if reading.beads is not None:
        sites.append(np.asarray(reading.beads.particles))
    used = np.concatenate(sites)
    protein = particles.residue[chosen[used[used >= 0]]]
    rows = chosen[~np.isin(particles.residue[chosen], protein)]
    order = np.argsort(particles.residue[rows], kind="stable")
    return Others(rows[order], particles)
