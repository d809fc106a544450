"""What is odd about the residues of a file: their numbers, their distances.

Shapes: R residues; positions in nm.
"""

import itertools
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcbackmap.protein.neighbours import pairs_within
from hpcbackmap.protein.residue_kinds import residue_kind
from hpcbackmap.trajectories.molecules import residue_sites

if TYPE_CHECKING:
    from hpcbackmap.trajectories.particles import Particles

__all__ = ["remarks"]

SHORTEST_REPEAT = 15
"""Residues; a chain that repeats fewer is no row of molecules."""
FEWEST_KINDS = 6
"""Kinds of residues in it; models without names call all of them alanine."""
TOGETHER = 0.15
"""nm; sites of two residues are never that near."""
CIS = (0.25, 0.33)
TRANS = (0.35, 0.42)
"""C-alpha distance across a cis and a trans peptide bond, nm."""


def remarks(particles: "Particles") -> list[str]:
    """What is odd about residues: their numbers, their distances."""
    protein = np.array(
        [residue_kind(row.name) in ("protein", "modified", "unknown") for row in particles.residues]
    )
    return [
        f"{particles.source}: {words}"
        for words in (
            *_backward(particles),
            *_numbered_twice(particles, protein),
            *_repeated(particles, protein),
            *_together(particles, protein),
            *_all_near(particles, protein),
        )
    ]


def _backward(particles: "Particles") -> Iterator[str]:
    """A chain's direction decides what is built."""
    rows = enumerate(particles.residues)
    for chain, group in itertools.groupby(rows, lambda item: item[1].chain):
        numbers = [row.number for _, row in group]
        down = sum(b == a - 1 for a, b in pairwise(numbers))
        if len(numbers) > 2 and down > 0.5 * (len(numbers) - 1):
            letter = particles.chains[chain].id.strip() or str(chain + 1)
            yield (
                f"the residue numbers of chain {letter} run backwards, from {numbers[0]} to {numbers[-1]}; the "
                "order of the file is taken for that from the N- to the C-terminus"
            )


def _numbered_twice(particles: "Particles", protein: np.ndarray) -> Iterator[str]:
    """Residues of one chain and number without insertion codes: files would join them."""
    seen: set[tuple[Any, ...]] = set()
    for number in np.flatnonzero(protein):
        row = particles.residues[number]
        key = row.chain, row.number, row.insertion
        if key in seen:
            yield (
                f"{particles.label(int(number))} has the number of a residue before it and no insertion code; "
                "the residues of its chain are renumbered from the first on"
            )
            return
        seen.add(key)


def _repeated(particles: "Particles", protein: np.ndarray) -> Iterator[str]:
    """A chain of one sequence several times over: copies that nothing parts, or repeats of a protein."""
    names = [row.name for row in particles.residues]
    rows = [number for number, row in enumerate(particles.residues) if protein[number]]
    for chain, group in itertools.groupby(rows, lambda number: particles.residues[number].chain):
        own = [names[number] for number in group]
        for times in range(len(own) // SHORTEST_REPEAT, 1, -1):
            unit, rest = divmod(len(own), times)
            if not rest and own == own[:unit] * times and len(set(own[:unit])) >= FEWEST_KINDS:
                letter = particles.chains[chain].id.strip() or str(chain + 1)
                yield (
                    f"chain {letter} is one sequence of {unit} residues {times} times over, read as one chain; "
                    f"if these are copies, say --molecule {unit}"
                )
                return


def _together(particles: "Particles", protein: np.ndarray) -> Iterator[str]:
    """Residues at one place, and chains inside each other."""
    if particles.positions is None:
        return
    sites = residue_sites(particles.names, particles.residue, len(particles.residues))
    places = particles.positions[sites].astype(np.float64)
    kept = np.flatnonzero(protein & np.isfinite(places).all(axis=1))
    pairs = kept[pairs_within(places[kept], TOGETHER)]
    if not len(pairs):
        return
    a, b = pairs[np.lexsort(pairs.T[::-1])][0]
    gap = np.linalg.norm(places[a] - places[b])
    chain = np.array([row.chain for row in particles.residues])
    across = int((chain[pairs[:, 0]] != chain[pairs[:, 1]]).sum())
    yield (
        f"{len(pairs)} pair(s) of residues stand at one place or nearly so, {particles.label(a)} and "
        f"{particles.label(b)} {gap:.2g} nm apart"
        + ("; chains inside each other cannot both be built well" if across > 2 else "")
    )


def _all_near(particles: "Particles", protein: np.ndarray) -> Iterator[str]:
    """C-alpha atoms as at cis peptide bonds, of which a protein has one in 300."""
    both = protein & np.roll(protein, 1)
    steps = particles.steps[both & np.isfinite(particles.steps)]
    near = int(((steps > CIS[0]) & (steps < CIS[1])).sum())
    usual = int(((steps > TRANS[0]) & (steps < TRANS[1])).sum())
    if "CA" not in particles.names or "BB" in particles.names:
        return
    if near > max(3, 0.1 * len(steps)) and near + usual > 0.9 * len(steps):
        yield (
            f"{near} of {len(steps)} neighbouring C-alpha atoms are {CIS[0]:.2f} to {CIS[1]:.2f} nm apart "
            f"(median {np.median(steps):.3g}), as at cis peptide bonds only; 0.38 is usual"
        )
