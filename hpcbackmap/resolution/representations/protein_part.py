"""The protein among the particles of a file: its residues, standard names, and what each has.

Shapes: F frames, P particles, R residues; positions in nm.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcbackmap.protein.residue_kinds import modified_parent, residue_kind, sirah_parent
from hpcbackmap.protein.residues import (
    RESIDUES,
    standard_atom_name,
    standard_residue_name,
)
from hpcbackmap.resolution.representations.bond_statistics import (
    bond_nats,
    types_of,
)
from hpcbackmap.resolution.representations.reading import (
    Particles,
)
from hpcbackmap.runtime.errors import InputError

__all__ = ["Protein", "bonds", "kind_word", "measured_frames", "protein_of", "shortest"]

FEW_PARTICLES = 3
"""Residues of more particles have atoms, among which some are hydrogens; a bead may be called HIS."""
SIRAH_ATOMS = {"GN": "N", "GC": "CA", "GO": "O"}
"""Backbone beads of SIRAH, which sit on these atoms (Darré et al. 2015)."""
MARTINI_BACKBONES = {"BAS", "BN0", "BND", "BNA", "BNDA", "BC5", "BP4", "BP5", "BQD", "BQA"}
"""Backbone beads of Martini 2 in older files: named by their type, which depends on the secondary structure."""
CHARGE_SITES = ("SCP", "SCN", "BBM", "BBP")
"""Extra sites of polarisable Martini beads."""


@dataclass(frozen=True)
class Protein:
    """The residues of a file that are protein: rows in the file's list, standard names, particles by name."""

    particles: Particles
    rows: np.ndarray
    sequence: tuple[str, ...]
    members: list[dict[str, int]]
    left_out: Counter[str]
    words: list[str]

    def label(self, residue: int) -> str:
        row = self.particles.residues[self.rows[residue]]
        chain = self.particles.chains[row.chain].id
        return (f"{chain}:" if chain else "") + f"{row.name}{row.number}{row.insertion}"

    def share(self, *names: str) -> float:
        """Share of the residues that have a particle of one of these names."""
        return float(np.mean([any(name in own for name in names) for own in self.members]))


def protein_of(particles: Particles) -> Protein:
    """Residues of protein with their particles; the rest is counted by kind. InputError if there is none."""
    letters = _one_letter(particles)
    of_residue: list[dict[str, int]] = [{} for _ in particles.residues]
    left_out: Counter[str] = Counter()
    names = [_parent(row.name, letters) for row in particles.residues]
    twice, sizes = None, np.bincount(particles.residue, minlength=len(names))
    for particle, residue in enumerate(particles.residue.tolist()):
        parent, own = names[residue], of_residue[residue]
        if parent is None:
            left_out[kind_word(particles.residues[residue].name)] += 1
            continue
        name = _particle_name(particles, particle, parent)
        if sizes[residue] > FEW_PARTICLES and _is_hydrogen(particles, particle, name):
            left_out["hydrogen"] += 1
        elif name in CHARGE_SITES:
            left_out[f"charge site {name}"] += 1
        elif name in own:
            twice = twice or (residue, name)
        else:
            own[name] = particle
    if any("BB" in own for own in of_residue):
        _drop_virtual_sites(of_residue, left_out)
    rows = np.array([i for i, own in enumerate(of_residue) if own], dtype=np.int64)
    if not len(rows):
        seen = sorted({row.name for row in particles.residues})
        raise InputError(
            "no protein residues; the residue names are "
            + ", ".join(seen[:8])
            + (" …" if len(seen) > 8 else "")
            + ": give the sequence with --sequence where names say nothing"
        )
    protein = Protein(
        particles, rows, tuple(names[i] for i in rows), [of_residue[i] for i in rows], left_out, []
    )
    if twice:
        here = int(np.searchsorted(rows, twice[0]))
        raise InputError(f"{protein.label(here)} has two particles named {twice[1]}")
    protein.words.extend(_modified_words(protein, letters))
    return protein


def _particle_name(particles: Particles, particle: int, parent: str) -> str:
    name = standard_atom_name(parent, particles.names[particle])
    if name in MARTINI_BACKBONES:
        return "BB"
    if sirah_parent(particles.residues[particles.residue[particle]].name):
        return SIRAH_ATOMS.get(name, name)
    return name


def _one_letter(particles: Particles) -> bool:
    """Whether residues are named by one letter: nucleotides have four or five of these, proteins more.

    Beside residues with names of three letters, or alone, W is water; K beside them is potassium.
    """
    names = {row.name.strip().upper() for row in particles.residues}
    if any(standard_residue_name(name) for name in names):
        return False
    known = {template.letter for template in RESIDUES.values()}
    single = {name for name in names if len(name) == 1}
    return len(single - set("ACGUTNW")) > 0 and single <= known


def _parent(name: str, letters: bool) -> str | None:
    if parent := sirah_parent(name):
        return parent
    name = name.strip().upper()
    if letters and len(name) == 1:
        return next(key for key, row in RESIDUES.items() if row.letter == name)
    return standard_residue_name(name) or modified_parent(name)


def kind_word(name: str) -> str:
    """What a residue that is no protein is, and its name: how ``left_out`` calls it."""
    kind = residue_kind(name)
    return f"{kind} {name}"


def _is_hydrogen(particles: Particles, particle: int, name: str) -> bool:
    if particles.elements[particle]:
        return particles.elements[particle] in ("H", "D")
    return name.lstrip("0123456789").startswith("H") and len(name) > 1


def _drop_virtual_sites(of_residue: list[dict[str, int]], left_out: Counter[str]) -> None:
    """Sites named CA beside beads named BB are virtual sites of a Gō model."""
    for own in of_residue:
        if "CA" in own and ("BB" in own or set(own) == {"CA"}):
            del own["CA"]
            left_out["virtual site CA of a Gō model"] += 1


def _modified_words(protein: Protein, letters: bool) -> list[str]:
    changed: Counter[tuple[str, str]] = Counter()
    for row, parent in zip(protein.rows, protein.sequence, strict=True):
        own = protein.particles.residues[row].name.strip()
        name = own.upper()
        named = (letters and len(name) == 1) or sirah_parent(own)
        if not named and standard_residue_name(name) is None:
            changed[name, parent] += 1
    return [
        f"{count} {name} built as {parent}, which it was made from"
        for (name, parent), count in sorted(changed.items())
    ]


def measured_frames(protein: Protein, frames: np.ndarray | None) -> np.ndarray:
    """Frames [F, P, 3] to measure: those that were given and are all numbers, else the first of the file."""
    if frames is not None:
        good = np.isfinite(frames).all(axis=(1, 2))
        return frames[good] if good.any() else frames
    if protein.particles.positions is None:
        raise InputError("no frame to tell what the particles are; give a trajectory")
    return protein.particles.positions[None]


def bonds(
    protein: Protein, beads: np.ndarray, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First and second residue of each bond [L], lengths [F, L] and their `bond_nats`."""
    rows = protein.particles.residues
    follows = [
        rows[a].chain == rows[b].chain and abs(rows[b].number - rows[a].number) <= 1
        for a, b in pairwise(protein.rows)
    ]
    first = np.flatnonzero(follows)
    gap = frames[:, beads[first + 1]].astype(np.float64) - frames[:, beads[first]]
    lengths = np.linalg.norm(shortest(gap, protein.particles.cell), axis=-1)
    types = types_of(protein.sequence)
    return first, first + 1, lengths, bond_nats(lengths, types[first], types[first + 1])


def shortest(gap: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
    """The nearest image of vectors [..., 3] in a cell whose rows are vectors."""
    if cell is None or abs(np.linalg.det(cell)) < 1e-9:
        return gap
    found: np.ndarray = gap - np.round(gap @ np.linalg.inv(cell)) @ cell
    return found
