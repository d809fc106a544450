"""Which particles of a file are the C-alpha atoms of which molecule."""

from dataclasses import dataclass, replace

import numpy as np

from hpcbackmap.protein.residues import standard_residue_name
from hpcbackmap.protein.topology import Topology, topology_from_mdtraj
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.checks import CALPHA_RANGE
from hpcbackmap.trajectories.particles import Particles
from hpcbackmap.trajectories.units import length_unit, wrong_unit

__all__ = ["Reading", "chosen_particles", "read_calpha", "require_unit"]


@dataclass(frozen=True, eq=False)
class Reading:
    """representation: what the particles are. topology: the molecule. index: particle of each C-alpha, int64
    [R]. left_out: other particles by kind. words: what a user should hear of it.
    """

    representation: str
    topology: Topology
    index: np.ndarray
    left_out: dict[str, int]
    words: tuple[str, ...] = ()

    def to_calpha(self, positions: np.ndarray) -> np.ndarray:
        """C-alpha atoms [F, R, 3] of all particles [F, P, 3]."""
        return positions[:, self.index]

    def within(self, chosen: np.ndarray) -> "Reading":
        """The same for all particles of a file, of which these are the ``chosen`` ones."""
        return replace(self, index=chosen[self.index])


def read_calpha(particles: Particles) -> Reading:
    """The C-alpha atoms of a file and the molecule that they imply.

    Raises InputError for residues that are not complete.
    """
    calpha = np.array([i for i, name in enumerate(particles.names) if name == "CA"], dtype=np.int64)
    if not len(calpha):
        raise InputError(
            f"{particles.source}: no CA atom; a C-alpha or all-atom trajectory is needed"
        )
    there = set(particles.residue[calpha].tolist())
    for number, row in enumerate(particles.residues):
        if standard_residue_name(row.name) and number not in there:
            raise InputError(
                f"{particles.source}: residue {particles.label(number)} has no CA atom; complete the model or "
                "take the residue out of the file"
            )
    sites = particles.subset(calpha)
    topology, index, left_out = topology_from_mdtraj(
        sites.to_mdtraj(), np.nan_to_num(sites.positions), particles.source
    )
    others = particles.n_atoms - len(calpha)
    return Reading(
        "ca",
        topology,
        calpha[index],
        left_out | ({"other particles": others} if others else {}),
        tuple(particles.words),
    )


def chosen_particles(
    particles: Particles, select: str | None, chains: list[str] | None
) -> np.ndarray:
    """Particles of an mdtraj selection and of chains with these letters, int64.

    Raises ConfigError for a selection that is none, and for chains that are not there.
    """
    chosen = np.arange(particles.n_atoms)
    if select is not None:
        chosen = _selected(particles.to_mdtraj(), select, particles.source)
    if chains:
        names = [chain.id or str(number + 1) for number, chain in enumerate(particles.chains)]
        unknown = [name for name in chains if name not in names]
        if unknown:
            raise ConfigError(
                f"{particles.source}: --chains {','.join(unknown)}: no such chain; there are "
                f"{', '.join(dict.fromkeys(names))}"
            )
        wanted = np.array([names[row.chain] in chains for row in particles.residues])
        chosen = chosen[wanted[particles.residue[chosen]]]
    if not len(chosen):
        raise ConfigError(f"{particles.source}: --select and --chains leave no particle")
    return chosen


def require_unit(path: str, topology: Topology, samples: np.ndarray) -> None:
    """Refuse sampled traces [F, R, 3] of which most neighbours are too near or too far."""
    chain = np.array(topology.chain_index)
    same = chain[1:] == chain[:-1]
    if not len(samples) or not same.any():
        return
    steps = np.median(np.linalg.norm(np.diff(samples, axis=1), axis=-1)[:, same], axis=0)
    (low, high), median = CALPHA_RANGE, float(np.median(steps))
    if low <= median <= high:
        return
    guess = wrong_unit(path, steps, low, high) or (
        "its unit or its order of particles is wrong, or molecules are cut by the periodic box"
    )
    unit = length_unit(path)
    scale = 10 if unit == "Angstrom" else 1
    raise InputError(
        f"{path}: neighbouring C-alpha atoms are {scale * median:.3g} {unit} apart (median), "
        f"{scale * 0.38:.3g} is right: {guess}"
    )


def _selected(atoms, select: str, named: str) -> np.ndarray:
    try:
        found = np.asarray(atoms.select(select), dtype=np.int64)
    except Exception as error:  # mdtraj passes on whatever its parser meets
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--select {select!r} is not understood ({reason})") from None
    if not len(found):
        raise ConfigError(f"{named}: --select {select!r} selects no particle")
    return found
