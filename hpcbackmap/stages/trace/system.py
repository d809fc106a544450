"""Static description of a molecule for the trace stage: residues, beads of any number of them, breaks."""

import numpy as np

from hpcbackmap.protein.residues import RESIDUE_INDEX, RESIDUES
from hpcbackmap.resolution.build import DEFINITIONS
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.layers.bead_system import BeadSystem, bead_fields
from hpcbackmap.stages.system import Beads, Particles, Plain
from hpcbackmap.stages.trace.spline import spline_weights

__all__ = [
    "BEAD_FEATURES",
    "REACH",
    "RESIDUE_FEATURES",
    "SEGMENTS",
    "STEPS",
    "STRUCTURES",
    "TraceSystem",
    "trace_system",
]

RESIDUE_FEATURES = len(RESIDUES) + 8
BEAD_FEATURES = len(RESIDUES) + 2 + len(DEFINITIONS)
SEGMENTS = 8
"""Parts of a bead that have noise of their own; up to eight residues have one each."""
STEPS, REACH = (1, 2, 4, 8), 2
"""Strides along the chain, and how many of each a residue sees to either side."""
STRUCTURES = "?HEC"
"""Secondary structure of a residue: not known, helix, strand, other."""
LONGEST = 300
"""Residues of the longest stretch that training shows; longer chains are described as such."""


class TraceSystem(BeadSystem):
    """N residues and B beads of them.

    residue_features [N, RESIDUE_FEATURES]: type, and where in its bead and its stretch each residue is.
    segment [N]: part of its bead. stretch [N]: number of the unbroken stretch. residue, residue_chain [N]:
    place and chain. before_index, after_index [N]: residues that orient the frame. reach_index, reach
    [N, STEPS, 2 REACH + 1]: residues so many strides on, and 1 where the stretch goes so far.
    bead_spline, spline [N, SPLINE_BEADS]: beads and weights of the smoothest trace through the beads.
    bead_features [B, BEAD_FEATURES]: composition, length, length of the chain, what a bead is. length [B]:
    residues. structure [N]: which of STRUCTURES each residue has. exact [B]: 1 where a bead is the mean of its
    C-alpha atoms, else 0. bead_previous, bead_next [B]: beside each along its chain, itself at an end.
    """

    residue_features: Plain
    segment: Plain
    stretch: Plain
    structure: Plain
    residue: Plain
    residue_chain: Plain
    before_index: Particles
    after_index: Particles
    reach_index: Particles
    reach: Plain
    bead_spline: Beads
    spline: Plain
    bead_features: Plain
    length: Plain
    exact: Plain
    bead_previous: Beads
    bead_next: Beads


def trace_system(ladder: Ladder, fine: str, coarse: str) -> TraceSystem:
    """Description of one molecule; ``fine`` is its C-alpha trace, ``coarse`` the beads above it."""
    topology, mapping = ladder.topology, ladder.mapping(coarse)
    fields = bead_fields(ladder, fine, coarse)
    length, slot, bead = fields["members"], fields["slot"], mapping.bead
    place = np.arange(topology.n_residues)
    chain = np.array(topology.chain_index)
    stretch = np.cumsum(~np.asarray(topology.bonded))
    types = np.eye(len(RESIDUES))[[RESIDUE_INDEX[name] for name in topology.sequence]]
    spline_bead, spline = spline_weights(mapping, chain)
    bead_before, bead_after = _beside(fields["place"], fields["chain"])
    previous, following = _neighbours(fields["place"], fields["chain"])
    before, after = _beside(place, stretch)
    reach_index, reach = _strides(stretch)
    definition = ladder.definition(coarse)
    exact = np.full(len(length), float(definition == DEFINITIONS[0]))
    fields |= {
        "residue_features": np.concatenate([types, _places(slot, length[bead], stretch)], 1),
        "segment": slot * SEGMENTS // np.maximum(SEGMENTS, length[bead]),
        "stretch": stretch,
        "structure": np.zeros(len(place), dtype=np.int64),
        "residue": place,
        "residue_chain": chain,
        "before_index": before,
        "after_index": after,
        "reach_index": reach_index,
        "reach": reach,
        "bead_spline": spline_bead,
        "spline": spline,
        "bead_features": _bead_features(fields, chain, definition),
        "length": length.astype(np.float64),
        "exact": exact,
        "freedom": 3.0 * (length - exact),
        "bead_before": bead_before,
        "bead_after": bead_after,
        "bead_previous": previous,
        "bead_next": following,
    }
    single = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in fields.items()}
    return TraceSystem.of_molecule(len(bead), len(length), **single)


def _places(slot: np.ndarray, length: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Where each residue is in its bead and how near the ends of its stretch, [N, 8]."""
    offset = (slot + 0.5) / length - 0.5
    first = np.searchsorted(stretch, stretch)
    last = np.searchsorted(stretch, stretch, side="right") - 1
    place = np.arange(len(slot))
    waves = [f(k * np.pi * offset) for k in (1, 2) for f in (np.sin, np.cos)]
    ends = [np.exp((first - place) / 3), np.exp((place - last) / 3)]
    return np.stack([*waves, offset * length / 5, 1 / length, *ends], 1)


def _bead_features(fields: dict[str, np.ndarray], chain: np.ndarray, definition: str) -> np.ndarray:
    whole = np.log(np.minimum(np.bincount(chain), LONGEST))[fields["chain"], None] / 5
    what = np.eye(len(DEFINITIONS))[[DEFINITIONS.index(definition)] * len(whole)]
    return np.concatenate([fields["composition"], whole, what], 1)


def _beside(place: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those before and after each along the chain, the next but one at an end of its group.

    place: 0 … n - 1 along the chain. A group of fewer than three takes those around it.
    """
    at = np.argsort(place)
    first, last = _ends(group[at])
    short = last - first < 2
    first, last = np.where(short, 0, first), np.where(short, len(at) - 1, last)
    rank = np.arange(len(at))
    before = np.where(rank > first, rank - 1, np.minimum(rank + 2, len(at) - 1))
    after = np.where(rank < last, rank + 1, np.maximum(rank - 2, 0))
    return _in_place(at, before), _in_place(at, after)


def _neighbours(place: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those before and after each along the chain of its group, itself at an end."""
    at = np.argsort(place)
    first, last = _ends(group[at])
    rank = np.arange(len(at))
    return _in_place(at, np.maximum(rank - 1, first)), _in_place(at, np.minimum(rank + 1, last))


def _ends(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last of the run of one group that each is in."""
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    run = np.cumsum(np.r_[False, group[1:] != group[:-1]])
    return starts[run], np.r_[starts[1:], len(group)][run] - 1


def _in_place(at: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    found = np.empty_like(at)
    found[at] = at[ranks]
    return found


def _strides(stretch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residues at strides along the chain, themselves where the stretch has ended, and whether it has not."""
    place = np.arange(len(stretch))
    offsets = np.array(STEPS)[:, None] * np.arange(-REACH, REACH + 1)
    found = place[:, None, None] + offsets
    inside = (found >= 0) & (found < len(stretch))
    found = np.clip(found, 0, len(stretch) - 1)
    inside &= stretch[found] == stretch[:, None, None]
    return np.where(inside, found, place[:, None, None]), inside.astype(np.float64)
