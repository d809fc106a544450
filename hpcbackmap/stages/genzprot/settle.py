"""Side chains of the one answer that run into others: what else they might do, likelihood against overlap.

A side chain tries other rotamers, and leans to either side in its own by the width that the distribution
has there; overlap that is left costs as much as an angle that is so unlikely. So where the network is sure
of a rotamer it stays, and yields a little.

Shapes: n rows (residues of frames), C candidates, K neighbour residues, W width.
"""

import itertools

import torch
from torch import Tensor

from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.clashes import overlaps
from hpcbackmap.stages.genzprot.dense_atoms import Scene, add_side_chains, side_chain_rows
from hpcbackmap.stages.genzprot.packing import PackingHead
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.torsions import angle_of_mode, well, without

__all__ = ["settle"]

ROUNDS = 2
"""Residues of even number move, then those of odd: neighbours along the chain do not evade each other."""
SOFTNESS = 0.02
"""Overlap (nm) that costs one nat."""
LEANS = (0.0, -1.0, 1.0)
"""In standard deviations of the rotamer."""
FLIPS = ((0, 1), (1, 0), (1, 1), (2, 0))
"""How many more likely rotamers of chi 1 and chi 2 to skip."""
SKIPS = torch.tensor([(0, 0)] * len(LEANS) ** 2 + list(FLIPS))
LEANINGS = torch.tensor([*itertools.product(LEANS, LEANS)] + [(0.0, 0.0)] * len(FLIPS))
"""Of chi 1 and chi 2 of each candidate, [C, 2]; the first is the most likely rotamer itself."""


def settle(
    packing: PackingHead, h: Tensor, scene: Scene, system: ResidueSystem, moving: Tensor
) -> None:
    """Move side chains of ``scene`` that run into other residues; h [F, R, W], moving: bool [R]."""
    for turn in range(ROUNDS):
        now = moving & (system.place % 2 == turn % 2)
        frame, residue = torch.nonzero(now.expand(h.shape[:2]), as_tuple=True)
        hit = overlaps(scene.atoms[frame, residue], scene, frame, residue) > 0
        frame, residue = frame[hit], residue[hit]
        if len(frame):
            add_side_chains(scene, _best(packing, h, scene, system, frame, residue), frame, residue)


def _best(
    packing: PackingHead,
    h: Tensor,
    scene: Scene,
    system: ResidueSystem,
    frame: Tensor,
    residue: Tensor,
) -> Tensor:
    """The cheapest candidate of rows (frame, residue) [n], given all others: atoms [n, MAX_ATOMS, 3]."""
    everyone = torch.ones_like(scene.near[frame, residue], dtype=torch.bool)
    seen = packing.see(h[frame, residue], scene, frame, residue, everyone)
    count = len(SKIPS)
    frames, residues = frame.repeat_interleave(count), residue.repeat_interleave(count)
    chi, nats = _candidates(packing, seen, scene, residues, system)
    side = side_chain_rows(scene, chi, frames, residues)
    cost = overlaps(side, scene, frames, residues) / SOFTNESS - nats
    best = cost.view(-1, count).argmin(1)
    return side.view(-1, count, *side.shape[1:])[torch.arange(len(best), device=best.device), best]


def _candidates(
    packing: PackingHead, seen: Tensor, scene: Scene, residues: Tensor, system: ResidueSystem
) -> tuple[Tensor, Tensor]:
    """Torsions [n C, N_CHI] of every candidate and how likely they are, nats [n C]; seen [n, W]."""
    count = len(SKIPS)
    context = seen.repeat_interleave(count, 0)
    number = torch.arange(count, device=seen.device).repeat(len(seen))
    chi = torch.zeros(len(context), N_CHI, dtype=seen.dtype, device=seen.device)
    nats = torch.zeros_like(chi[:, 0])
    for k in range(N_CHI):
        there = system.torsion_mask[residues, Role.CHI1 + k]
        rows = torch.nonzero(there).squeeze(-1)
        if len(rows) == 0:
            break
        logits = packing.logits(context[rows], k, scene, residues[rows])
        angle = angle_of_mode(logits)
        lean = torch.zeros_like(angle)
        if k < SKIPS.shape[1]:
            skip = SKIPS.to(angle.device)[number[rows], k]
            lean = LEANINGS.to(angle)[number[rows], k]
            rest = logits
            for skipped in range(1, int(SKIPS[:, k].max()) + 1):
                rest = without(rest, angle)
                angle = torch.where(skip >= skipped, angle_of_mode(rest), angle)
        weight, width = well(logits, angle)
        chi[rows, k] = angle + lean * width
        nats[rows] += weight.log() - 0.5 * lean.square()
        if k + 1 < N_CHI:
            context = packing.after(context, k, chi[:, k], there)
    return chi, nats
