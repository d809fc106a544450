"""What frames of coarse sites must be like, measured on the frames themselves; bad ones named or repaired.

Models of one bead per residue hold their bonds by springs, and files round: so the bounds of a C-alpha bond
come from how far the bonds of this input scatter. Shapes: F frames, R residues, L links of neighbours that are
bonded; positions nm.
"""

from dataclasses import dataclass, replace

import numpy as np

from hpcbackmap.protein.helical_turns import helical_turns, mirrored
from hpcbackmap.protein.residues import CIS, TRANS
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.representations.reading import Reading
from hpcbackmap.trajectories.checks import CALPHA_RANGE, straight_at

__all__ = [
    "SiteRules",
    "astray",
    "cis_in_words",
    "closed_rules",
    "find_unusable",
    "handedness_in_words",
    "measure_rules",
    "repaired",
]

REACH = 4.5
"""Standard deviations that a bond may be off before the frame counts as broken."""
SMALLEST = 0.10
"""nm; nearer C-alpha atoms are never a bond that fluctuates."""
SITE_RANGES = {
    "com": (0.05, 1.3),
    "bb": (0.05, 0.75),
    "sc": (0.05, 2.0),
    "backbone": CALPHA_RANGE,
}
"""Between what the sites of bonded residues must lie, nm."""
SITE_NAMES = {
    "ca": "C-alpha atoms",
    "backbone": "C-alpha atoms",
    "com": "centres of mass",
    "bb": "backbone beads",
    "sc": "side-chain centres",
}
FARTHEST_BEAD = 1.2
"""nm; of a side chain from what places its residue."""
CIS_NAMED = 5
NUDGE = 0.02
"""nm by which an atom in line with its neighbours is moved aside before its trace is closed."""


@dataclass(frozen=True)
class SiteRules:
    """site: what a residue's particle is. scatter: standard deviation of bond lengths, nm. low, high: bounds of
    a bond, nm. cis: the residues whose bonds to the ones before are cis in the whole input, of C-alpha atoms
    that fluctuate so far that a frame alone does not tell, and of other beads; None: every frame tells.
    """

    site: str
    scatter: float
    low: float
    high: float
    cis: tuple[int, ...] | None = None


def measure_rules(topology: Topology, site: str, samples: np.ndarray) -> SiteRules:
    """Rules of an input from the sites of sampled frames [F, R, 3] with numbers; deterministic."""
    lengths = _distances(samples, np.flatnonzero(topology.bonded))
    scatter = 0.0
    if lengths.size:
        scatter = float(1.4826 * np.median(np.abs(lengths - np.median(lengths))))
    if site in SITE_RANGES:
        return SiteRules(site, round(scatter, 5), *SITE_RANGES[site])
    return SiteRules(
        site,
        scatter=round(scatter, 5),
        low=round(max(SMALLEST, min(CALPHA_RANGE[0], CIS - REACH * scatter)), 4),
        high=round(max(CALPHA_RANGE[1], TRANS + REACH * scatter), 4),
        cis=_cis_throughout(topology, samples, scatter),
    )


def _cis_throughout(
    topology: Topology, samples: np.ndarray, scatter: float
) -> tuple[int, ...] | None:
    import torch

    from hpcbackmap.stages.calpha.closing import lasting_cis_links
    from hpcbackmap.stages.calpha.trace import FLUCTUATING

    if scatter < FLUCTUATING or not len(samples):
        return None
    proline = torch.tensor([name == "PRO" for name in topology.sequence])
    numbers = torch.from_numpy(samples.astype(np.float64))
    found = lasting_cis_links(numbers, torch.tensor(topology.bonded), proline, scatter)
    return tuple(int(residue) for residue in torch.nonzero(found).squeeze(-1))


def handedness_in_words(topology: Topology, samples: np.ndarray) -> list[str]:
    """A sentence about sites of sampled frames [F, R, 3] that are those of a mirror image; else none."""
    left, turns = helical_turns(samples, np.array(topology.bonded))
    if not mirrored(left, turns):
        return []
    return [
        f"{left} of {turns} helical turns wind to the left, as in a mirror image (in proteins 2 of 100 do); "
        "if an axis was reflected, turn its sign and start again: all residues are built as L-amino acids"
    ]


def cis_in_words(topology: Topology, cis: tuple[int, ...]) -> list[str]:
    """A sentence about the prolines whose links to the residues before beads show to be cis; none without."""
    if not cis:
        return []
    named = ", ".join(topology.label(residue) for residue in cis[:CIS_NAMED])
    more = ", …" if len(cis) > CIS_NAMED else ""
    return [f"the beads around {named}{more} are those of cis prolines ({len(cis)} in all)"]


def astray(reading: Reading, particles: np.ndarray, sites: np.ndarray) -> dict[int, str]:
    """Why side-chain beads of frames [F, P, 3] cannot be those of residues at sites [F, R, 3], by place."""
    beads = reading.beads
    if beads is None or not len(beads.particles):
        return {}
    gap = particles[:, beads.particles].astype(np.float64) - sites[:, beads.residue]
    far = np.linalg.norm(gap, axis=-1)
    wrong = ~(far < FARTHEST_BEAD)
    reasons = {}
    for place in np.flatnonzero(wrong.any(axis=1)).tolist():
        bead = int(np.argmax(wrong[place]))
        label = reading.topology.label(int(beads.residue[bead]))
        reasons[place] = (
            f"a side-chain bead of {label} is {far[place, bead]:.3g} nm from its residue, not up to "
            f"{FARTHEST_BEAD:.3g}"
            if np.isfinite(far[place, bead])
            else f"a side-chain bead of {label} is not finite"
        )
    return reasons


def find_unusable(topology: Topology, sites: np.ndarray, rules: SiteRules | None) -> dict[int, str]:
    """Why frames of sites [F, R, 3] cannot be backmapped, by place. rules: None does not look at bonds."""
    bad = ~np.isfinite(sites).all(axis=(1, 2))
    reasons = dict.fromkeys(np.flatnonzero(bad).tolist(), "input is not finite")
    numbers = np.where(bad[:, None, None], 0.0, sites)
    second = np.flatnonzero(topology.bonded)
    if rules is not None and len(second):
        lengths = _distances(numbers, second)
        wrong = (lengths < rules.low) | (lengths > rules.high)
        for place in np.flatnonzero(wrong.any(axis=1) & ~bad).tolist():
            link = int(np.argmax(wrong[place]))
            a, b = topology.label(int(second[link]) - 1), topology.label(int(second[link]))
            more = f" ({int(wrong[place].sum())} such pairs)" if wrong[place].sum() > 1 else ""
            reasons[place] = (
                f"the {SITE_NAMES[rules.site]} of {a} and {b} are bonded but {lengths[place, link]:.3g} nm "
                f"apart, not {rules.low:.3g} to {rules.high:.3g}{more}"
            )
    if rules is None or SITE_NAMES[rules.site] == SITE_NAMES["ca"]:
        straight = straight_at(numbers)
        for place in np.flatnonzero(straight >= 0).tolist():
            first = int(straight[place]) - 1
            a, b, c = (topology.label(first + k) for k in range(3))
            reasons.setdefault(place, f"the C-alpha atoms of {a}, {b} and {c} lie on one line")
    return reasons


def closed_rules(rules: SiteRules) -> SiteRules:
    """What a trace has to be when it has been repaired: links that a peptide spans. Without them structures
    would come out broken, with residues of the other hand.
    """
    from hpcbackmap.stages.calpha.closing import POSSIBLE

    return replace(rules, low=POSSIBLE.trans[0], high=POSSIBLE.trans[1])


def repaired(topology: Topology, traces: np.ndarray) -> np.ndarray:
    """Broken or straight C-alpha traces [F, R, 3] closed, however far; float32."""
    import torch

    from hpcbackmap.stages.calpha.closing import IDEAL, close_links

    aside = traces.astype(np.float64)
    for _ in range(traces.shape[1]):
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
    bonded = torch.tensor(topology.bonded)
    none_cis = torch.zeros(traces.shape[:2], dtype=torch.bool)
    bounds = torch.tensor(IDEAL, dtype=torch.float64).expand(len(traces), -1, -1)
    with torch.no_grad():
        done = close_links(torch.from_numpy(aside), bonded, none_cis, bounds)
    return done.numpy().astype(np.float32)


def _distances(positions: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances [F, L] of residues ``second`` to the ones before them."""
    gap = positions[:, second].astype(np.float64) - positions[:, second - 1]
    found: np.ndarray = np.linalg.norm(gap, axis=-1)
    return found
