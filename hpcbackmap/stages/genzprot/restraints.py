"""Torsions of side chains whose beads are given: each bin weighed by how well the beads come out.

The torsions of a residue are followed one after another, as the network gives them, along several branches:
of all bins of all branches those stay that the network and the beads find likeliest together. While later
torsions are open, their part of a bead is averaged over one turn and widens its tolerance. What is left at
the end stands for the distribution of all torsions under network and beads: a bin weighs as much as its
branches.

Shapes: n rows (residues of frames), J branches, M beads, W width.
"""

import math

import torch
from torch import Tensor

from hpcbackmap.protein.side_chain import N_CHI, SIDE, place_side_chains
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.choose_rotamer import Pick
from hpcbackmap.stages.genzprot.dense_atoms import GivenBeads, Scene
from hpcbackmap.stages.genzprot.packing import BINS, PackingHead
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.torsions import bin_of, centres

__all__ = ["held_rows", "misfit", "pick_held"]

BRANCHES = 24
OPEN = 0.05
"""nm; how far a bead may move with each torsion beyond the next one."""
ROWS = 64
"""Rows treated at a time, which bounds the memory."""
NEVER = -1e4
AGREE = 60.0
"""Concentration with which branches follow an angle that was picked: about a bin's width."""


def held_rows(scene: Scene, frame: Tensor, residue: Tensor) -> Tensor:
    """Which rows have a bead, bool [n]."""
    return torch.isfinite(_beads(scene).position[frame, residue]).all(-1).any(-1)


def misfit(side: Tensor, scene: Scene, frame: Tensor, residue: Tensor) -> Tensor:
    """What candidates ``side`` [n, C, MAX_ATOMS, 3] of rows (frame, residue) cost by their beads: nats [n,
    C].
    """
    beads = _beads(scene)
    target = beads.position[frame, residue].unsqueeze(1)
    bead = torch.einsum("nma,ncax->ncmx", beads.shares[residue], side)
    return (bead - target).nan_to_num().square().sum((-1, -2)) / (2 * beads.tolerance**2)


def _beads(scene: Scene) -> GivenBeads:
    """Those of a scene that has some."""
    assert scene.beads is not None
    return scene.beads


def pick_held(
    packing: PackingHead,
    context: Tensor,
    scene: Scene,
    frame: Tensor,
    residue: Tensor,
    system: ResidueSystem,
    pick: Pick,
) -> Tensor:
    """Torsions [n, N_CHI] that ``pick`` takes one after another; context [n, W] as `PackingHead.see` gives
    it.
    """
    chi = torch.zeros(len(frame), N_CHI, dtype=context.dtype, device=context.device)
    count = system.torsion_mask[residue, Role.CHI1 : Role.CHI1 + N_CHI].sum(-1)
    for number in range(1, N_CHI + 1):
        for rows in torch.nonzero(count == number).squeeze(-1).split(ROWS):
            if not len(rows):
                continue
            some = _Rows(packing, scene, frame[rows], residue[rows])
            angles, weight = _branches(some, context[rows], number)
            for k in range(number):
                chosen = angles[..., k]
                logits = _binned(chosen, weight)
                chi[rows, k] = pick(k, logits, frame[rows], residue[rows]).to(chi)
                weight = weight + AGREE * (torch.cos(chosen - chi[rows, k].unsqueeze(-1)) - 1)
    return chi


def _binned(angle: Tensor, weight: Tensor) -> Tensor:
    """Logits of the bins [n, BINS] that branches [n, J] of log weight ``weight`` fall into."""
    weight = (weight - weight.amax(-1, keepdim=True)).clamp_min(NEVER / 100)
    total = torch.zeros(*weight.shape[:-1], BINS, dtype=weight.dtype, device=weight.device)
    total = total.scatter_add(-1, bin_of(angle, BINS), weight.exp())
    return total.log().clamp_min(NEVER)


class _Rows:
    """Rows (frame, residue) [n] of a scene and what places and weighs their beads."""

    def __init__(
        self,
        packing: PackingHead,
        scene: Scene,
        frame: Tensor,
        residue: Tensor,
    ):
        self.packing = packing
        self.backbone = scene.atoms[frame, residue, : SIDE.start]
        assert scene.rigid is not None
        beads = _beads(scene)
        self.kind, self.rigid = scene.kind[residue], scene.rigid[frame, residue]
        self.scene, self.residue = scene, residue
        self.shares = beads.shares[residue]
        self.target = beads.position[frame, residue]
        self.there = torch.isfinite(self.target).all(-1)
        self.target = self.target.nan_to_num()
        self.variance = beads.tolerance**2

    def beads(self, chi: Tensor) -> Tensor:
        """Beads [n, J, M, 3] of torsions [n, J, N_CHI]."""
        branches = chi.shape[1]
        backbone, kind, rigid = (
            x.repeat_interleave(branches, 0) for x in (self.backbone, self.kind, self.rigid)
        )
        atoms = place_side_chains(backbone, kind, rigid, chi.flatten(0, 1))
        atoms = atoms.unflatten(0, (-1, branches))
        return torch.einsum("nma,njax->njmx", self.shares, atoms)

    def nats(self, bead: Tensor, spread: Tensor | float = 0.0) -> Tensor:
        """Log likelihood of the given beads [n, ...] about ``bead`` [n, ..., M, 3] with variance added [n,
        ..., M].
        """
        extra = bead.dim() - 3
        target = self.target.view(len(self.target), *[1] * extra, *self.target.shape[1:])
        there = self.there.view(len(self.there), *[1] * extra, -1)
        variance = self.variance + spread
        gap = (bead - target).square().sum(-1)
        nats = -0.5 * gap / variance - 1.5 * torch.log(torch.as_tensor(variance)).to(gap)
        return torch.where(there, nats, 0.0).sum(-1)


def _branches(rows: _Rows, context: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Torsions [n, J, N_CHI] and log weights [n, J] of the branches of residues with ``number`` torsions."""
    n = len(context)
    context = context.unsqueeze(1)
    chi = torch.full((n, 1, N_CHI), math.pi, dtype=context.dtype, device=context.device)
    prior = torch.zeros(n, 1, dtype=context.dtype, device=context.device)
    every = centres(BINS, context)
    for k in range(number):
        branches = chi.shape[1]
        residue = rows.residue.repeat_interleave(branches)
        logits = rows.packing.logits(context.flatten(0, 1), k, rows.scene, residue)
        logits = logits.unflatten(0, (n, branches))
        reached = prior.unsqueeze(-1) + logits.log_softmax(-1)
        outlook = _outlook(rows, chi, k, number, every)
        score = (reached + outlook).flatten(1)
        best = score.topk(min(BRANCHES, score.shape[1]), dim=-1).indices
        parent, angle = best // BINS, every[best % BINS]
        chi = chi.gather(1, parent.unsqueeze(-1).expand(-1, -1, N_CHI)).clone()
        chi[..., k] = angle
        prior = reached.flatten(1).gather(1, best)
        context = context.gather(1, parent.unsqueeze(-1).expand(-1, -1, context.shape[-1]))
        if k + 1 < number:
            everywhere = torch.ones_like(angle, dtype=torch.bool).flatten()
            flat = rows.packing.after(context.flatten(0, 1), k, angle.flatten(), everywhere)
            context = flat.unflatten(0, (n, -1))
    return chi, prior + rows.nats(rows.beads(chi))


def _outlook(rows: _Rows, chi: Tensor, k: int, number: int, every: Tensor) -> Tensor:
    """How likely the beads are with torsion ``k`` in each bin and later ones open: nats [n, J, BINS].

    A bead goes round a circle with one torsion, so that three places tell all; proline's ring, which opens and
    closes, is placed at every bin.
    """
    if number == 1:
        turned = chi.repeat_interleave(len(every), 1)
        turned[..., 0] = every.repeat(chi.shape[1])
        found: Tensor = rows.nats(rows.beads(turned)).unflatten(1, (chi.shape[1], -1))
        return found
    opened = (0.0, math.pi) if k + 1 < number else (math.pi,)
    places = []
    for later in opened:
        for turn in (0.0, math.pi / 2, math.pi):
            turned = chi.clone()
            turned[..., k] = turn
            if k + 1 < number:
                turned[..., k + 1] = later
            places.append(turned)
    bead = rows.beads(torch.cat(places, 1)).unflatten(1, (len(opened), 3, -1))
    middle = (bead[:, :, 0] + bead[:, :, 2]) / 2
    basis = torch.stack([middle, bead[:, :, 0] - middle, bead[:, :, 1] - middle], 2)
    waves = torch.stack([torch.ones_like(every), every.cos(), every.sin()])
    bead = torch.einsum("noijmx,ib->nojbmx", basis, waves)
    mean = bead.mean(1)
    spread = (bead - mean.unsqueeze(1)).square().sum(-1).mean(1) / 2
    spread = spread + OPEN**2 * max(0, number - k - 2)
    return rows.nats(mean, spread)
