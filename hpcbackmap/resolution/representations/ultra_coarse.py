"""Beads of several residues each: which residues they are, from a sequence and the beads of a file.

Shapes: P particles of the file, B beads, R residues.
"""

from collections.abc import Sequence

import numpy as np

from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import DEFINITIONS, build_ladder
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.mapping import Mapping
from hpcbackmap.resolution.representations.reading import Particles, Reading
from hpcbackmap.runtime.errors import ConfigError, InputError

__all__ = ["bead_ladder", "read_ultra_coarse"]

LEAST = 3
"""Beads without which a molecule has no orientation."""


def read_ultra_coarse(
    particles: Particles,
    sequences: list[str],
    residues_per_bead: int | None = None,
    lengths: Sequence[int] | None = None,
) -> Reading:
    """Beads of a file as runs of residues of ``sequences`` (one-letter, one each chain), in the order of the
    file. One sequence and several chains of as many beads are copies.

    residues_per_bead: the length of every run but the last of a chain; lengths: of every run, chains one
    after the other, or those of one copy; default: the residues of a chain are shared out evenly. Sites:
    ``ucg``, particle of each bead [B], and ``bead_of``, bead of each residue [R].
    Raises InputError where sequences and beads do not go together, saying of which chain and how many.
    """
    beads = _beads_of_chains(particles, sequences, lengths)
    if len(sequences) == 1 < len(beads):
        sequences = sequences * len(beads)
        if lengths is not None and len(lengths) == len(beads[0]):
            lengths = [*lengths] * len(beads)
    names = [
        particles.chains[particles.residues[particles.residue[rows[0]]].chain].id for rows in beads
    ]
    plain = [name.strip() for name in names]
    own = plain if all(plain) and len(set(plain)) == len(plain) else None
    topology = topology_from_sequence(sequences, own)
    runs, first = [], 0
    for number, (sequence, rows) in enumerate(zip(sequences, beads, strict=True)):
        given = None if lengths is None else np.array(lengths[first : first + len(rows)], dtype=int)
        runs.append(first + _runs(number, len(sequence), len(rows), residues_per_bead, given))
        first += len(rows)
    if lengths is not None and len(lengths) != first:
        raise InputError(f"{len(lengths)} lengths of runs for {first} beads")
    rows, bead_of = np.concatenate(beads), np.concatenate(runs)
    if len(rows) < LEAST:
        raise InputError(f"{len(rows)} bead(s); {LEAST} at least, fewer have no orientation")
    if len(rows) == topology.n_residues:
        raise InputError(
            f"{len(rows)} beads for {len(rows)} residues: beads of one residue are read as ca or com; say "
            "--representation ca, com or bb, without --segments"
        )
    sizes = np.bincount(bead_of)
    word = (
        f"read as ucg: {len(rows)} beads of {sizes.min()} to {sizes.max()} residues, "
        f"{topology.n_residues} residues in {len(sequences)} chain(s)"
    )
    return Reading("ucg", topology, {"ucg": rows, "bead_of": bead_of}, words=[word])


def bead_ladder(reading: Reading, definition: str = DEFINITIONS[0]) -> Ladder:
    """``fg``, ``ca``, ``ucg``: each bead what ``definition`` says of its residues (`resolution.build`)."""
    if definition not in DEFINITIONS:
        raise ConfigError(f"a bead cannot be {definition!r}; know {', '.join(DEFINITIONS)}")
    trace = build_ladder(reading.topology, ["fg", "ca"])
    bead_of = reading.sites["bead_of"]
    beads = Mapping(bead_of, np.ones(len(bead_of)))
    defined = {} if definition == DEFINITIONS[0] else {"ucg": definition}
    return Ladder(reading.topology, ("fg", "ca", "ucg"), (*trace.mappings, beads), defined)


def _beads_of_chains(
    particles: Particles, sequences: list[str], lengths: Sequence[int] | None
) -> list[np.ndarray]:
    """Particles of each chain. Files that do not part chains are parted by the lengths of the sequences."""
    chain = np.array([row.chain for row in particles.residues])[particles.residue]
    parts = [np.flatnonzero(chain == c) for c in np.unique(chain)]
    copies = len(sequences) == 1 and len({len(part) for part in parts}) == 1
    if lengths is not None and sum(lengths) == sum(
        map(len, sequences)
    ):  # of one copy, or of all that is there
        copies = copies and len(lengths) == len(parts[0])
    if not copies and len(parts) != len(sequences):
        parts = _joined(particles, parts)
    if copies or len(parts) == len(sequences):
        return parts
    if len(parts) > 1:
        raise InputError(
            f"the file has {len(parts)} chains of "
            + ", ".join(str(len(part)) for part in parts[:6])
            + f" beads, the sequence has {len(sequences)}; give one sequence a chain, in the file's order"
        )
    ends = np.cumsum([len(sequence) for sequence in sequences])[:-1]
    return np.split(parts[0], np.round(ends * len(parts[0]) / sum(map(len, sequences))).astype(int))


def _joined(particles: Particles, parts: list[np.ndarray]) -> list[np.ndarray]:
    """Neighbours of one chain name together: reading parts beads of one chain that are far apart."""
    found: list[np.ndarray] = []
    last = None
    for part in parts:
        row = particles.chains[particles.residues[particles.residue[part[0]]].chain]
        if row == last:
            found[-1] = np.concatenate([found[-1], part])
        else:
            found.append(part)
        last = row
    return found


def _runs(
    number: int, residues: int, beads: int, per_bead: int | None, lengths: np.ndarray | None
) -> np.ndarray:
    """Bead of each residue of one chain, from 0."""
    where = f"chain {number + 1}: {beads} beads for {residues} residues"
    if beads == 0 or beads > residues:
        raise InputError(f"{where}; a bead stands for one residue at the least")
    if lengths is not None:
        if len(lengths) < beads or lengths.min() < 1 or lengths.sum() != residues:
            listed = ", ".join(map(str, lengths[:12]))
            raise InputError(f"{where}; runs of {listed} residues make {lengths.sum()}")
        return np.repeat(np.arange(beads), lengths)
    if per_bead is None:
        return np.arange(residues) * beads // residues
    wanted = -(-residues // per_bead)
    if wanted != beads:
        raise InputError(
            f"{where}; {per_bead} residues a bead make {wanted}. Where they part: bead {min(beads, wanted)} is "
            f"residue {min(beads, wanted) * per_bead - per_bead + 1} onwards"
        )
    return np.arange(residues) // per_bead
