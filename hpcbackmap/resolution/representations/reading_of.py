"""What a reading holds: sites, beads of side chains and the topology that they imply.

Shapes: F frames, R residues; positions in nm.
"""

from collections import Counter
from typing import Any

import numpy as np

from hpcbackmap.protein.residues import (
    BACKBONE,
)
from hpcbackmap.protein.topology import Topology, named_chains
from hpcbackmap.resolution.representations.bead_tables import residue_masses
from hpcbackmap.resolution.representations.bond_statistics import (
    kinds_of_residues,
)
from hpcbackmap.resolution.representations.protein_part import (
    Protein,
    bonds,
    measured_frames,
    shortest,
)
from hpcbackmap.resolution.representations.reading import (
    BACKBONE_SLOTS,
    Reading,
    ResidueRow,
    SideBeads,
)
from hpcbackmap.resolution.representations.registry import (
    REPRESENTATIONS,
    Representation,
)
from hpcbackmap.runtime.errors import InputError

__all__ = ["reading_of"]

STRETCHES = 4
"""Stretches of a chain that are named."""
ALONE = ("ca", "com", "bb", "sc")
"""Readings of one bead per residue: its name does not matter."""
LONGEST = {"ca": 0.6, "backbone": 0.6, "com": 1.3, "bb": 0.65, "sc": 2.0}
"""nm; sites of residues that follow each other in number are bonded when nearer."""
FAR_IN_NUMBER = {"ca": 0.45, "backbone": 0.45, "com": 0.0, "bb": 0.45, "sc": 0.0}
"""nm; the same where the numbers leave a gap."""


def reading_of(name: str, protein: Protein, frames: np.ndarray | None) -> Reading:
    entry = REPRESENTATIONS[name]
    sites = _sites(name, entry, protein)
    anchor = sites["backbone"][:, 1] if entry.site == "backbone" else sites[entry.site]
    kinds = _kinds(name, protein, anchor, frames)
    if kinds is not None:
        sites["calpha"] = kinds
    beads = _side_beads(entry, protein, sites)
    if beads is not None:
        sites["side_chain"] = beads.particles
    used = set(anchor.tolist()) | set(beads.particles.tolist() if beads else ())
    used |= set(sites["backbone"].ravel().tolist()) if "backbone" in sites else set()
    unused = Counter(
        word for own in protein.members for word, particle in own.items() if particle not in used
    )
    left_out = dict(protein.left_out)
    if unused:
        left_out[f"not part of {name}: " + ", ".join(sorted(unused)[:6])] = sum(unused.values())
    topology = _topology(protein, entry.site, anchor, measured_frames(protein, frames))
    return Reading(name, topology, sites, beads, left_out, protein.words + _mixed(topology, kinds))


def _mixed(topology: Topology, calpha: np.ndarray | None) -> list[str]:
    """A sentence about a chain of centres of mass of which some residues, bool [R], are C-alpha atoms."""
    if calpha is None or not calpha.any():
        return []
    rows = np.flatnonzero(calpha)
    stretches = [
        part[[0, -1]].tolist() for part in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    ]
    named = ", ".join(
        f"{topology.label(a)} to {topology.label(b)}" for a, b in stretches[:STRETCHES]
    )
    more = ", …" if len(stretches) > STRETCHES else ""
    return [
        f"{len(rows)} of {len(calpha)} residues are read as C-alpha atoms, by their distances: {named}{more}"
    ]


def _sites(name: str, entry: Representation, protein: Protein) -> dict[str, np.ndarray]:
    """Particle of each residue by role; residues that lack theirs are refused by name."""
    site = []
    for residue, own in enumerate(protein.members):
        found = next((own[one] for one in entry.names if one in own), None)
        if found is None and name in ALONE and len(own) == 1:
            found = next(iter(own.values()))
        if found is None:
            wanted = " or ".join(entry.names) or "single bead"
            raise InputError(
                f"residue {protein.label(residue)} has no {wanted}, which {name} needs; it has "
                f"{' '.join(sorted(own))}. Complete the model, or leave the residue out with --select"
            )
        site.append(found)
    sites = {entry.site: np.array(site, dtype=np.int64)}
    if entry.site == "backbone":
        rows = [[own.get(atom, -1) for atom in BACKBONE_SLOTS] for own in protein.members]
        sites = {"backbone": np.array(rows, dtype=np.int64)}
        missing = np.argwhere(sites["backbone"][:, :3] < 0)
        if len(missing):
            residue, slot = missing[0]
            raise InputError(
                f"residue {protein.label(residue)} has no {BACKBONE[slot]}, which backbone needs; leave the "
                "residue out with --select, or use --representation ca"
            )
    return sites


def _kinds(
    name: str, protein: Protein, anchor: np.ndarray, frames: np.ndarray | None
) -> np.ndarray | None:
    """Of centres of mass: residues whose bead is a C-alpha atom, bool [R]."""
    if name != "com":
        return None
    first, _, _, nats = bonds(protein, anchor, measured_frames(protein, frames))
    if not len(first):
        return np.zeros(len(anchor), dtype=bool)
    found: np.ndarray | None = kinds_of_residues(nats[..., :2].mean(0), first, len(anchor)) == 0
    return found


def _side_beads(entry: Representation, protein: Protein, sites: dict[str, Any]) -> SideBeads | None:
    if entry.side is None:
        return None
    rows: list[tuple[int, int, np.ndarray]] = []
    for residue, (name, own) in enumerate(zip(protein.sequence, protein.members, strict=True)):
        if entry.site_restrains:
            if entry.site == "com" and not sites["calpha"][residue]:
                rows.append((int(sites["com"][residue]), residue, residue_masses(name)))
            elif entry.site == "sc" and (masses := entry.side(name, "SC")) is not None:
                rows.append((int(sites["sc"][residue]), residue, masses))
            continue
        for bead, particle in own.items():
            if (masses := entry.side(name, bead)) is not None:
                rows.append((particle, residue, masses))
    if not rows:
        return None
    particles, residues, table = (np.array(column) for column in zip(*rows, strict=True))
    weights = table.sum(-1)
    return SideBeads(particles, residues, table / weights[:, None], weights, entry.tolerance)


def _topology(protein: Protein, site: str, anchor: np.ndarray, frames: np.ndarray) -> Topology:
    rows = [protein.particles.residues[i] for i in protein.rows]
    used = sorted({row.chain for row in rows})
    chain = tuple(used.index(row.chain) for row in rows)
    bonded = _bonded(protein, rows, site, frames[:, anchor])
    ends = [i + 1 == len(rows) or chain[i + 1] != chain[i] for i in range(len(rows))]
    place = {int(row): i for i, row in enumerate(protein.rows)}
    codes = tuple(row.insertion for row in rows)
    return Topology(
        sequence=protein.sequence,
        chain_index=chain,
        chain_ids=named_chains(protein.particles.chains[c].id for c in used),
        residue_numbers=tuple(row.number for row in rows),
        bonded=bonded,
        has_oxt=tuple(ends),
        disulphides=tuple(
            (place[a], place[b]) for a, b in protein.particles.disulphides if {a, b} <= set(place)
        ),
        insertion_codes=codes if any(codes) else (),
    )


def _bonded(
    protein: Protein, rows: list[ResidueRow], site: str, places: np.ndarray
) -> tuple[bool, ...]:
    """To the residue before: in one chain, and not so far apart, as the median of frames ``places`` [F, R,
    3], that a piece must be missing.
    """
    gap = np.diff(places.astype(np.float64), axis=1)
    far = np.median(np.linalg.norm(shortest(gap, protein.particles.cell), axis=-1), axis=0)
    bonded = [False]
    for i in range(1, len(rows)):
        consecutive = abs(rows[i].number - rows[i - 1].number) <= 1
        limit = (LONGEST if consecutive else FAR_IN_NUMBER)[site]
        bonded.append(bool(rows[i].chain == rows[i - 1].chain and not far[i - 1] > limit))
    return tuple(bonded)
