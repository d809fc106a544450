"""How a user's file is read: which of its particles, as which representation, whole in the periodic box.

Shapes: F frames, P particles, R residues; positions nm.
"""

from collections import Counter
from dataclasses import replace
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from hpcbackmap.protein.residue_kinds import residue_kind
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.sequences import sequence_option
from hpcbackmap.resolution.representations.reading import Reading
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.molecules import FEW_LETTERS
from hpcbackmap.trajectories.particles import Particles
from hpcbackmap.trajectories.units import fitting_unit, length_unit, wrong_unit

if TYPE_CHECKING:
    import mdtraj

    from hpcbackmap.trajectories.periodic import Mender

__all__ = [
    "WholeSites",
    "chosen_particles",
    "require_known_residues",
    "require_unit",
    "with_sequence",
]

REDUCED = 0.1
"""How far from 1 the median distance of neighbours may be in a file whose unit of length is a bond."""
NEIGHBOURS = (0.15, 1.2)
"""Between what the median distance of residues that follow each other lies in any representation, nm."""


LONGEST_REASON = 120
"""Letters of what mdtraj says of a selection: its grammar, where that is empty."""
CHAIN_NAMES = ("CA", "BB")
"""Particles that a residue of a chain has."""
OF_CHAINS = ("protein", "modified", "unknown")


class WholeSites:
    """Makes frames of one reading whole: residues along their chains, each particle beside its residue.

    gather: also brings chains together; else only in frames of which the box cuts a chain.
    """

    def __init__(self, reading: Reading, gather: bool):
        self._gather = gather
        self.site, self.anchor = _anchor(reading)
        self._topology = reading.topology
        particles, residues = [], []
        for name, rows in reading.sites.items():
            if rows.dtype == bool or name in (self.site, "side_chain"):
                continue
            residue, slot = np.nonzero(rows.reshape(len(self.anchor), -1) >= 0)
            particles.append(rows.reshape(len(self.anchor), -1)[residue, slot])
            residues.append(residue)
        if self.site == "backbone":
            residue, slot = np.nonzero(reading.sites["backbone"] >= 0)
            particles.append(reading.sites["backbone"][residue, slot])
            residues.append(residue)
        if reading.beads is not None:
            particles.append(reading.beads.particles)
            residues.append(reading.beads.residue)
        self._particles = np.concatenate([np.zeros(0, dtype=np.int64), *particles])
        self._residues = np.concatenate([np.zeros(0, dtype=np.int64), *residues])
        self._mender: Mender | None = None

    def __call__(self, positions: np.ndarray, cells: np.ndarray | None) -> np.ndarray:
        """Positions [F, P, 3] of whole molecules, float32; cells [F, 3, 3] or None."""
        whole = np.array(positions, dtype=np.float32)
        if cells is None:
            return whole
        from hpcbackmap.trajectories.cells import usable_cells
        from hpcbackmap.trajectories.checks import bonds_of
        from hpcbackmap.trajectories.periodic import Mender

        if self._mender is None:
            links = bonds_of(self._topology, coarse=True)
            chains = np.array(self._topology.chain_index)
            self._mender = Mender(len(self.anchor), links, self._gather, chains)
        sites, _ = self._mender.mend(whole[:, self.anchor], cells)
        numbers = np.isfinite(whole).all(axis=(1, 2))
        for frame in np.flatnonzero(usable_cells(cells) & numbers):
            cell = cells[frame].astype(np.float64)
            gap = whole[frame, self._particles].astype(np.float64) - sites[frame, self._residues]
            gap -= np.rint(gap @ np.linalg.inv(cell)) @ cell
            whole[frame, self._particles] = sites[frame, self._residues] + gap
        whole[:, self.anchor] = sites
        return whole


def _anchor(reading: Reading) -> tuple[str, np.ndarray]:
    """The role of the particle that places a residue, and its row of each residue."""
    if "backbone" in reading.sites:
        return "backbone", reading.sites["backbone"][:, 1]
    site = next(name for name in ("ca", "com", "bb", "sc") if name in reading.sites)
    return site, reading.sites[site]


def chosen_particles(particles: Particles, select: str | None, chains: list[str]) -> np.ndarray:
    """Particles of an mdtraj selection and of chains with these letters, int64.

    Raises ConfigError for a selection that is none, and for chains that are not there.
    """
    chosen = np.arange(particles.n_atoms)
    if select is not None:
        chosen = _selected(particles.to_mdtraj(), select)
    if chains:
        names = [chain.id.strip() or str(k + 1) for k, chain in enumerate(particles.chains)]
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


def with_sequence(particles: Particles, sequence: str) -> Particles:
    """The same residues, named by ``sequence``: one-letter codes, FASTA text, or a file with it.

    One chain stands for all molecules of its length.

    Raises ConfigError if it has another length or letters that are none, or says where names and letters part.
    """
    chains = sequence_option(sequence)
    letters = "".join(chains)
    if len(chains) == 1 and _is_copies(particles, len(letters)):
        letters *= len(particles.chains)
    names = {template.letter: name for name, template in RESIDUES.items()}
    if len(letters) != len(particles.residues):
        if len(chains) == 1 and len(particles.residues) % len(letters) == 0:
            raise ConfigError(
                f"--sequence has {len(letters)} residues, {particles.source} has {len(particles.residues)}; if "
                f"these are copies of it, say so with --molecule {len(letters)}"
            )
        raise ConfigError(
            f"--sequence has {len(letters)} residues, {particles.source} has {len(particles.residues)}; if its "
            "beads are of several residues each, say --representation ucg"
        )
    known = [row.name in RESIDUES for row in particles.residues]
    if len({row.name for row in particles.residues}) > 1 and all(known):
        for place, (row, letter) in enumerate(zip(particles.residues, letters, strict=True)):
            if row.name != names[letter]:
                raise ConfigError(
                    f"--sequence: position {place + 1} is {letter} ({names[letter]}), in {particles.source} "
                    f"it is {particles.label(place)}"
                )
    rows = [
        row._replace(name=names[letter])
        for row, letter in zip(particles.residues, letters, strict=True)
    ]
    return replace(particles, residues=rows)


def _is_copies(particles: Particles, length: int) -> bool:
    """Whether every molecule has so many residues."""
    return set(Counter(row.chain for row in particles.residues).values()) == {length}


def require_known_residues(particles: Particles) -> None:
    """Refuse residues of a chain whose name says nothing: to leave them out would cut the chain."""
    of_chain = {
        int(residue)
        for residue, name in zip(particles.residue, particles.names, strict=True)
        if name in CHAIN_NAMES
    }
    letters = {template.letter for template in RESIDUES.values()}
    for number, row in enumerate(particles.residues):
        kind = "" if row.name in letters else residue_kind(row.name)
        if number in of_chain and kind in ("unknown", "D-residue"):
            what = "a D-residue" if kind == "D-residue" else "unknown residue"
            raise InputError(
                f"{particles.source}: {what} {particles.label(number)}; rename it to its standard "
                "parent, give --sequence where names say nothing, or leave it out with --select"
            )


def require_unit(path: str, particles: Particles) -> None:
    """Refuse residues of a chain that follow each other ten times too near or too far."""
    steps = particles.steps[_within_proteins(particles)]
    if not len(steps):
        return
    (low, high), median = NEIGHBOURS, float(np.median(steps))
    unit = length_unit(path)
    scale = 10 if unit == "Angstrom" else 1
    reduced = abs(scale * median - 1) < REDUCED
    if low <= median <= high and not reduced:
        return
    guess = wrong_unit(path, steps, low, high) or (
        "its unit (--unit NM says how many nm it is) or its order of particles is wrong, or molecules are cut "
        "by the periodic box"
    )
    if option := fitting_unit(path, steps, low, high):
        guess += f", or say --unit {option}"
    if reduced:
        guess = "lengths seem to be counted in bonds (reduced units); say --unit 0.38"
    raise InputError(
        f"{path}: residues that follow each other are {scale * median:.3g} {unit} apart (median), "
        f"{scale * 0.38:.3g} is right of C-alpha atoms: {guess}; beads of several residues need --sequence"
    )


def _within_proteins(particles: Particles) -> np.ndarray:
    """Residues that follow another one of their chain, both of protein or of unknown kind, bool [R]."""
    rows = particles.residues
    letters = len({row.name for row in rows if len(row.name) == 1}) > FEW_LETTERS
    kept = {
        name: (letters and len(name) == 1) or residue_kind(name) in OF_CHAINS
        for name in {row.name for row in rows}
    }
    protein = np.array([kept[row.name] for row in rows])
    chain = np.array([row.chain for row in rows])
    follows = np.zeros(len(rows), dtype=bool)
    follows[1:] = protein[1:] & protein[:-1] & (chain[1:] == chain[:-1])
    found: np.ndarray = np.isfinite(particles.steps) & follows
    return found


def _selected(atoms: "mdtraj.Topology", select: str) -> np.ndarray:
    try:
        found = np.asarray(atoms.select(select), dtype=np.int64)
    except Exception as error:  # mdtraj passes on whatever its parser meets
        reason = shorten(str(error) or type(error).__name__, LONGEST_REASON, placeholder=" …")
        raise ConfigError(f"--select {select!r} is not understood ({reason})") from None
    if not len(found):
        raise ConfigError(f"--select {select!r} selects no particle")
    return found
