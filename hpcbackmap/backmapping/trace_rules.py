"""What frames of a C-alpha trace must be like, measured on the frames themselves; bad ones named or repaired.

Models of one bead per residue hold their bonds by springs, and files round: so bounds come from how far the
bonds of this input scatter, and a trace that scatters more than peptide planes can follow is closed to the
nearest one that they can. Shapes: F frames, R residues, L links of neighbours that are bonded; positions nm.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from hpcbackmap.protein.topology import Topology
from hpcbackmap.trajectories.checks import CALPHA_RANGE, straight_at

if TYPE_CHECKING:
    from hpcbackmap.stages.layers.bead_system import BeadSystem

__all__ = ["TraceRules", "bonded_residues", "closed", "find_unusable", "measure_trace", "repaired"]

TRANS, CIS, BORDER = 0.380, 0.295, 0.34
"""C-alpha distances of trans and cis links and the border between them, nm."""
SCATTER = 0.010
"""Standard deviation of bond lengths (nm) up to which peptide planes follow; 0.006 in simulations of atoms."""
OFFSET = 0.020
"""Distance (nm) of the median bond from 0.380 up to which they do."""
REACH = 4.5
"""Standard deviations that a bond may be off before the frame counts as broken."""
SMALLEST = 0.10
"""nm; nearer neighbours are never a bond that fluctuates."""
BREAK = 0.45
"""Median distance (nm) above which neighbours in a chain are not bonded."""
CIS_ODDS = {True: -3.0, False: -8.0}
"""Logarithm of the odds that a link is cis, before proline and before anything else (crystal structures)."""
NUDGE = 0.02
"""nm by which an atom in line with its neighbours is moved aside before its trace is closed."""
ITERATIONS = 400


@dataclass(frozen=True)
class TraceRules:
    """scatter: standard deviation of bond lengths, nm. close: whether every frame is closed. cis: which links
    are cis where a trace is closed, [L]. low, high: bounds of a bond, nm.
    """

    scatter: float
    close: bool
    cis: tuple[bool, ...]
    low: float
    high: float


class Closing(NamedTuple):
    """positions: float32 [F, R, 3], nm. moved: root mean square displacement of each frame, nm [F]."""

    positions: np.ndarray
    moved: np.ndarray


def bonded_residues(chain_index: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Which residues are bonded to the one before them, bool [R], by the median of sampled frames [F, R, 3].

    A frame that is broken somewhere does not break the chain; a gap in the model does.
    """
    gaps = _distances(samples, np.arange(1, samples.shape[1]))
    median = np.nanmedian(gaps, axis=0) if len(gaps) else np.zeros(len(chain_index) - 1)
    return np.r_[False, (chain_index[1:] == chain_index[:-1]) & (median < BREAK)]


def measure_trace(topology: Topology, samples: np.ndarray) -> TraceRules:
    """Rules of an input from sampled frames [F, R, 3] with numbers; deterministic."""
    second = np.flatnonzero(topology.bonded)
    lengths = _distances(samples, second)
    if not lengths.size:
        return TraceRules(0.0, False, (), *CALPHA_RANGE)
    typical = np.median(lengths, axis=0)
    trans = lengths[:, typical >= BORDER]
    scatter, middle = 0.0, TRANS
    if trans.size:
        middle = float(np.median(trans))
        scatter = float(1.4826 * np.median(np.abs(trans - middle)))
    close = bool(scatter > SCATTER or abs(middle - TRANS) > OFFSET)
    proline = np.array([topology.sequence[i] == "PRO" for i in second])
    cis = typical < BORDER
    if close:
        prior = np.where(proline, CIS_ODDS[True], CIS_ODDS[False])
        gain = ((typical - TRANS) ** 2 - (typical - CIS) ** 2) / (2 * max(scatter, SCATTER) ** 2)
        cis = gain + prior > 0
    return TraceRules(
        scatter=round(scatter, 5),
        close=close,
        cis=tuple(cis.tolist()),
        low=round(max(SMALLEST, min(CALPHA_RANGE[0], TRANS - REACH * scatter)), 4),
        high=round(max(CALPHA_RANGE[1], TRANS + REACH * scatter), 4),
    )


def find_unusable(
    topology: Topology, positions: np.ndarray, rules: TraceRules | None
) -> dict[int, str]:
    """Why frames [F, R, 3] cannot be backmapped, by place. rules: None does not look at bonds."""
    bad = ~np.isfinite(positions).all(axis=(1, 2))
    reasons = dict.fromkeys(np.flatnonzero(bad).tolist(), "input is not finite")
    numbers = np.where(bad[:, None, None], 0.0, positions)
    second = np.flatnonzero(topology.bonded)
    if rules is not None and len(second):
        lengths = _distances(numbers, second)
        wrong = (lengths < rules.low) | (lengths > rules.high)
        for place in np.flatnonzero(wrong.any(axis=1) & ~bad).tolist():
            link = int(np.argmax(wrong[place]))
            a, b = topology.label(int(second[link]) - 1), topology.label(int(second[link]))
            more = f" ({int(wrong[place].sum())} such pairs)" if wrong[place].sum() > 1 else ""
            reasons[place] = (
                f"the C-alpha atoms of {a} and {b} are bonded but {lengths[place, link]:.3g} nm apart, not "
                f"{rules.low:.3g} to {rules.high:.3g}{more}"
            )
    straight = straight_at(numbers)
    for place in np.flatnonzero(straight >= 0).tolist():
        first = int(straight[place]) - 1
        a, b, c = (topology.label(first + k) for k in range(3))
        reasons.setdefault(place, f"the C-alpha atoms of {a}, {b} and {c} lie on one line")
    return reasons


def closed(topology: Topology, positions: np.ndarray, rules: TraceRules) -> Closing:
    """The nearest traces with ideal bonds, possible angles and no contacts; every chain keeps its centre."""
    import torch

    from hpcbackmap.stages.layers.close_trace import close_calpha

    second = np.flatnonzero(topology.bonded)
    if not len(second) or not len(positions):
        return Closing(positions, np.zeros(len(positions), dtype=np.float32))
    chain = np.asarray(topology.chain_index)
    sizes = np.bincount(chain)
    system = SimpleNamespace(
        bond_index=torch.from_numpy(np.stack([second - 1, second], axis=1)),
        bead_of=torch.from_numpy(chain.astype(np.int64)),
        weight=torch.from_numpy(1.0 / sizes[chain]),
        n_coarse=len(sizes),
        fine_system=torch.zeros(len(chain), dtype=torch.int64),
        n_systems=1,
    )
    centre = positions.astype(np.float64).mean(axis=1, keepdims=True)
    near = torch.from_numpy((positions - centre).astype(np.float64))
    with torch.no_grad():
        done = (
            close_calpha(
                near, cast("BeadSystem", system), torch.tensor(rules.cis), ITERATIONS
            ).numpy()
            + centre
        )
    moved = np.sqrt(np.square(done - positions).sum(-1).mean(-1))
    return Closing(done.astype(np.float32), moved.astype(np.float32))


def repaired(topology: Topology, positions: np.ndarray, rules: TraceRules) -> Closing:
    """Broken or straight traces [F, R, 3] closed, however far; what cannot be closed stays broken."""
    aside = positions.astype(np.float64)
    for _ in range(positions.shape[1]):
        straight = straight_at(aside)
        todo = np.flatnonzero(straight >= 0)
        if not len(todo):
            break
        middle = straight[todo]
        along = aside[todo, middle + 1] - aside[todo, middle - 1]
        helper = np.eye(3)[np.abs(along).argmin(axis=1)]
        across = np.cross(along, helper)
        size = np.linalg.norm(across, axis=-1, keepdims=True)
        side = np.where(middle % 2, 1.0, -1.0)[:, None]
        aside[todo, middle] += NUDGE * side * across / np.where(size > 0, size, 1.0)
    done = closed(topology, aside.astype(np.float32), rules).positions
    moved = np.sqrt(np.square(done.astype(np.float64) - positions).sum(-1).mean(-1))
    return Closing(done, moved.astype(np.float32))


def _distances(positions: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances [F, L] of residues ``second`` to the ones before them."""
    gap = positions[:, second].astype(np.float64) - positions[:, second - 1]
    return np.linalg.norm(gap, axis=-1)
