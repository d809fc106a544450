"""What needs no training of the ladder: bead centres, and the closed spline with atoms at their mean places."""

import numpy as np
import torch
from chains import Chain
from nested import ladder_of
from rungs import describe

from hpcbackmap.evaluation.baselines import bead_centre, close_trace
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.trace.spline import spline_weights

__all__ = ["trivial_answers"]


@torch.no_grad()
def trivial_answers(chain: Chain, top: int, once: Stage, atoms: Stage) -> dict[str, np.ndarray]:
    """Heavy atoms [1, 1, A, 3] of each way.

    once: the one-step stage, whose mean places of atoms by residue type are used and nothing else. atoms: the
    stage from C-alpha atoms to heavy atoms of the ladder of two steps.
    """
    ladder = ladder_of(chain.topology, top, ("fg", "ca", f"ucg{top}"))
    beads = ladder.coarsen(chain.atoms[None])[f"ucg{top}"]
    index, weight = spline_weights(ladder.mappings[1], np.zeros(chain.topology.n_residues, int))
    spline = (weight[..., None] * beads[0][index]).sum(1)[None]
    trace = close_trace(ladder, spline, beads, np.zeros(chain.topology.n_residues, bool))
    closed = torch.from_numpy(trace).float()
    *_, system = describe(once, chain, top)
    usual = once.usual[system.residue_type] * system.there.unsqueeze(-1)
    placed = once.placed(closed, usual[None], system)[:, system.there]
    *_, residues = describe(atoms, chain, top)
    found = {
        "bead centre": bead_centre(ladder, beads),
        "closed spline, mean places": placed.numpy(),
        "closed spline, then ca-fg": atoms.mode(closed, collate([residues])).numpy(),
    }
    return {name: each[:, None] for name, each in found.items()}
