"""Side chains given the backbone and the side chains that are already there.

The distribution is autoregressive over residues in any order: a residue sees the atoms around it, in the
frame of its own backbone, and of other side chains those that were placed before. Training picks the
order at random, sampling places a share of the residues at a time.

Shapes: n rows (residues of frames), K neighbour residues, M atoms, W width.
"""

import torch
from torch import Tensor, nn

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import CB, N_CHI, SIDE
from hpcbackmap.stages.genzprot.dense_atoms import Scene, neighbour_atoms, squared_distances
from hpcbackmap.stages.genzprot.torsions import bin_of
from hpcbackmap.stages.layers.geometry import radial_basis
from hpcbackmap.stages.layers.network import MLP, Block, activated, weighted_sum

__all__ = ["BINS", "PackingHead"]

BINS = 36
ATOMS = 32
"""Nearest atoms that a side chain sees."""
REACH, BASIS = 1.2, 12
"""Reach (nm) and number of the radial functions."""
HIDDEN = 64
ROWS = 256
"""Rows treated at a time where no gradient is needed: they fit the cache."""
PENALTY = 15.0
"""Taken off the logits of proline chi1 bins in which no ring can close."""
KINDS = CB + 1 + 2 * len(RESIDUES) * (MAX_ATOMS - CB)
"""Atom kinds: four of the backbone, OXT, and of each residue type the side chain, seen and unseen."""


def _backbone_frames(atoms: Tensor) -> Tensor:
    """Right-handed frames [..., 3, 3] (rows are axes) on CA from dense atoms [..., MAX_ATOMS, 3]."""
    n, ca, c = atoms[..., 0, :], atoms[..., 1, :], atoms[..., 2, :]
    first = nn.functional.normalize(c - ca, dim=-1)
    towards = n - ca
    second = nn.functional.normalize(
        towards - (towards * first).sum(-1, keepdim=True) * first, dim=-1
    )
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)


class PackingHead(Block):
    """Distribution of the chi torsions of some residues of a scene."""

    atom_kind: Tensor
    beyond: Tensor
    unclosed: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.kinds = nn.Embedding(KINDS, HIDDEN)
        self.place = nn.Linear(BASIS + 6, HIDDEN)
        self.receiver = nn.Linear(width, HIDDEN)
        self.message = nn.Linear(HIDDEN, HIDDEN)
        self.own = nn.Linear(9, width)
        self.context = MLP(width + HIDDEN, 2 * width, width)
        self.keep = nn.Linear(width, width)
        self.earlier = nn.ModuleList(nn.Embedding(BINS, width) for _ in range(N_CHI))
        self.heads = nn.ModuleList(MLP(width, width, BINS) for _ in range(N_CHI))
        self.register_buffer("atom_kind", _atom_kinds().flatten(), persistent=False)
        self.register_buffer("beyond", _lengths(), persistent=False)
        self.register_buffer("unclosed", _unclosed(), persistent=False)

    def see(
        self, h: Tensor, scene: Scene, frame: Tensor, residue: Tensor, placed: Tensor
    ) -> Tensor:
        """What rows (frame, residue) [n] make of their surroundings: [n, W]; h [n, W] of the rows.

        placed: bool [n, K], neighbours whose side chains are seen.
        """
        if torch.is_grad_enabled():
            found: Tensor = self.economical(self._see, h, scene, frame, residue, placed)
            return found
        rows = zip(*(x.split(ROWS) for x in (h, frame, residue, placed)), strict=True)
        return torch.cat([self._see(h, scene, *part) for h, *part in rows])

    def _see(
        self, h: Tensor, scene: Scene, frame: Tensor, residue: Tensor, placed: Tensor
    ) -> Tensor:
        own = scene.atoms[frame, residue]
        axes, ca = _backbone_frames(own), own[:, 1]
        position, kind, gap = self._nearest(scene, frame, residue, placed, own)
        local = torch.bmm(position - ca.unsqueeze(1), axes.transpose(1, 2))
        unit = local / local.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        pair = self.place(torch.cat([radial_basis(gap, REACH, BASIS), local, unit], -1))
        pair += self.kinds(kind)
        pair += self.receiver(h).unsqueeze(1)
        message = activated(self.message(activated(pair)))
        seen = weighted_sum(message, (gap < REACH).to(message.dtype))
        context = h + self.own(self._own_backbone(scene, frame, residue, axes, ca))
        found: Tensor = self.keep(context) + self.context(torch.cat([context, seen], -1))
        return found

    def _nearest(
        self, scene: Scene, frame: Tensor, residue: Tensor, placed: Tensor, own: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions [n, M, 3], kinds and distances [n, M] of the atoms around the likely side chain."""
        near = scene.near[frame, residue]
        atoms = neighbour_atoms(scene, frame, residue)
        beyond = self.beyond[scene.kind[residue]].unsqueeze(-1)
        middle = own[:, CB] + beyond * nn.functional.normalize(own[:, CB] - own[:, 1], dim=-1)
        squared = squared_distances(atoms, middle).unflatten(1, (-1, MAX_ATOMS))
        squared[..., SIDE].masked_fill_(~placed.unsqueeze(-1), torch.inf)
        squared, chosen = squared.flatten(1).topk(
            min(ATOMS, atoms.shape[1]), dim=-1, largest=False, sorted=False
        )
        whose, slot = chosen // MAX_ATOMS, chosen % MAX_ATOMS
        kind = (placed * len(RESIDUES) + scene.kind[near]).gather(1, whose)
        kind = self.atom_kind[kind * MAX_ATOMS + slot]
        position = atoms.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3))
        return position, kind, squared.sqrt().clamp_max(10 * REACH)

    @staticmethod
    def _own_backbone(
        scene: Scene, frame: Tensor, residue: Tensor, axes: Tensor, ca: Tensor
    ) -> Tensor:
        """Own O, C before and N after in the own frame [n, 9]; they are what phi and psi are."""
        before, after = scene.before[residue], scene.after[residue]
        atoms = scene.atoms
        points = torch.stack(
            [atoms[frame, residue, 3], atoms[frame, before, 2], atoms[frame, after, 0]], 1
        )
        local = torch.bmm(points - ca.unsqueeze(1), axes.transpose(1, 2))
        return 4 * local.flatten(1)

    def logits(self, context: Tensor, k: int, scene: Scene, residue: Tensor) -> Tensor:
        """Logits of chi ``k`` (from 0) of residues [n] given their contexts [n, W]: [n, BINS]."""
        logits: Tensor = self.heads[k](nn.functional.silu(context))
        if k == 0:
            logits = logits - self.unclosed[scene.kind[residue]]
        if scene.bias is not None:
            logits = logits + scene.bias[residue, k]
        return logits

    def after(self, context: Tensor, k: int, angle: Tensor, there: Tensor) -> Tensor:
        """The context once chi ``k`` is known to be ``angle`` [n] where ``there`` [n]."""
        found: Tensor = context + self.earlier[k](bin_of(angle, BINS)) * there.unsqueeze(-1)
        return found


def _atom_kinds() -> Tensor:
    """Kind of an atom by (side chain placed or not, residue type, slot): int64 [2, types, MAX_ATOMS]."""
    types, side = len(RESIDUES), MAX_ATOMS - CB
    table = torch.zeros(2, types, MAX_ATOMS, dtype=torch.int64)
    table[..., :CB] = torch.arange(CB)
    numbers = torch.arange(2 * types * side).view(2, types, side)
    table[..., CB:] = CB + 1 + numbers
    table[..., -1] = CB
    return table


def _lengths() -> Tensor:
    """How far beyond CB the middle of each residue type's side chain lies, about, nm [types]."""
    beyond = [len(template.atoms) - CB - 2 for template in RESIDUES.values()]
    return torch.tensor(beyond, dtype=torch.float32).mul(0.035).clamp(0, 0.25)


def _unclosed() -> Tensor:
    """Nats off each bin of chi1 [types, BINS]: where proline's ring, |chi1| < 50 degrees, cannot close."""
    middle = (torch.arange(BINS) + 0.5) * 360 / BINS - 180
    proline = torch.tensor([name == "PRO" for name in RESIDUES])
    return PENALTY * (proline.unsqueeze(-1) & (middle.abs() >= 50))
