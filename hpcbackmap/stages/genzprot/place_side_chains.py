"""Side chains placed into a scene one after another, each given the atoms that are there."""

import torch
from torch import Tensor

from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.choose_rotamer import Pick
from hpcbackmap.stages.genzprot.clashes import overlaps
from hpcbackmap.stages.genzprot.dense_atoms import Scene, add_side_chains, side_chain_rows
from hpcbackmap.stages.genzprot.packing import PackingHead
from hpcbackmap.stages.genzprot.restraints import held_rows, pick_held
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.layers.on_host import places

__all__ = ["CHI", "SideChains", "free", "moving", "moving_rows", "turning", "turning_rows"]

CHI = slice(Role.CHI1, Role.CHI1 + N_CHI)

Rows = tuple[Tensor, ...]
"""Frames and residues [n] each."""
Counts = tuple[int, ...]
"""How many of them have each chi torsion."""


def turning(system: ResidueSystem) -> Tensor:
    """Residues with a chi torsion, bool [R]."""
    return system.torsion_mask[:, Role.CHI1]


def moving(system: ResidueSystem) -> Tensor:
    """Residues whose side chains may draw again: all that turn but proline, bool [R]."""
    return turning(system) & ~system.proline


def free(scene: Scene, system: ResidueSystem) -> Tensor:
    """Residues whose side chains may settle: all that move but those held by beads, bool [R]."""
    if scene.beads is None:
        return moving(system)
    return moving(system) & ~torch.isfinite(scene.beads.position).flatten(2).any(-1).any(0)


def turning_rows(system: ResidueSystem, frames: int) -> tuple[Rows, Counts]:
    """Frame and residue of all that turn, in ``frames`` frames, and how many have each chi."""
    counts = tuple(frames * number for number in system.torsions[CHI])
    return places(turning(system).expand(frames, -1), counts[0]), counts


def moving_rows(system: ResidueSystem, frames: int) -> tuple[Rows, Counts]:
    """The same of all that may draw again."""
    counts = tuple(frames * number for number in system.moving[CHI])
    return places(moving(system).expand(frames, -1), counts[0]), counts


class SideChains:
    """Those of one scene, changed in place. h: features of the residues, [F, R, W]."""

    def __init__(self, head: PackingHead, h: Tensor, scene: Scene, system: ResidueSystem):
        self.head, self.h, self.scene, self.system = head, h, scene, system

    def doubt(self) -> Tensor:
        """Rank in [0, 1) of each residue [F, R] by how uncertain chi 1 is while no side chain is there."""
        h, system = self.h, self.system
        (frame, residue), _ = turning_rows(system, len(h))
        nobody = torch.zeros_like(self.scene.near[frame, residue], dtype=torch.bool)
        seen = self.head.see(h[frame, residue], self.scene, frame, residue, nobody)
        logits = self.head.logits(seen, 0, self.scene, residue)
        doubt = torch.zeros(h.shape[:2], dtype=h.dtype, device=h.device)
        doubt[frame, residue] = 1 - logits.softmax(-1).square().sum(-1)
        whose = system.coarse_system
        order = (doubt + 2 * whose).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        return (order - system.first_bead[whose]) / system.n_beads[whose]

    def place(self, rank: Tensor, rounds: int, pick: Pick) -> None:
        """All of them, a share of the residues in each of ``rounds``, in order of ``rank`` [F, R]."""
        scene, turn = self.scene, (rank * rounds).long()
        placed = (~turning(self.system)).repeat(len(turn), 1)
        for k in range(rounds):
            frame, residue = torch.nonzero((turn == k) & turning(self.system), as_tuple=True)
            if len(frame) == 0:
                continue
            seen = placed[frame.unsqueeze(-1), scene.near[frame, residue]]
            chi = self.choose(frame, residue, seen, pick)
            add_side_chains(scene, side_chain_rows(scene, chi, frame, residue), frame, residue)
            placed[frame, residue] = True

    def redraw(self, picks: list[Pick]) -> None:
        """Those that run into others draw again, given all others; the better of the two stays."""
        scene = self.scene
        (frame, residue), _ = moving_rows(self.system, len(scene.near))
        for pick in picks:
            depth = overlaps(scene.atoms[frame, residue], scene, frame, residue)
            hit = depth > 0
            if not hit.any():
                break
            frame, residue, depth = frame[hit], residue[hit], depth[hit]
            everyone = torch.ones_like(scene.near[frame, residue], dtype=torch.bool)
            chi = self.choose(frame, residue, everyone, pick)
            side = side_chain_rows(scene, chi, frame, residue)
            better = overlaps(side, scene, frame, residue) < depth
            add_side_chains(scene, side[better], frame[better], residue[better])

    def choose(
        self, frame: Tensor, residue: Tensor, seen: Tensor, pick: Pick, counts: Counts | None = None
    ) -> Tensor:
        """Torsions chi of rows (frame, residue) [n] that ``pick`` takes one after another: [n, N_CHI].

        seen: bool [n, K], neighbours whose side chains are there. counts: rows with each chi, where that is
        known without asking the device.
        """
        scene, system = self.scene, self.system
        context = self.head.see(self.h[frame, residue], scene, frame, residue, seen)
        if scene.beads is None:
            return self._pick(context, frame, residue, pick, counts)
        chi = torch.zeros(len(frame), N_CHI, dtype=context.dtype, device=context.device)
        held = held_rows(scene, frame, residue)
        open_, held = (torch.nonzero(rows).squeeze(-1) for rows in (~held, held))
        chi[open_] = self._pick(context[open_], frame[open_], residue[open_], pick)
        chi[held] = pick_held(
            self.head, context[held], scene, frame[held], residue[held], system, pick
        )
        return chi

    def _pick(
        self,
        context: Tensor,
        frame: Tensor,
        residue: Tensor,
        pick: Pick,
        counts: Counts | None = None,
    ) -> Tensor:
        """`choose` given what the rows make of their surroundings, [n, W]."""
        chi = torch.zeros(len(frame), N_CHI, dtype=context.dtype, device=context.device)
        for k in range(N_CHI):
            there = self.system.torsion_mask[residue, Role.CHI1 + k]
            (rows,) = (
                torch.nonzero(there, as_tuple=True) if counts is None else places(there, counts[k])
            )
            if len(rows) == 0:
                break
            logits = self.head.logits(context[rows], k, self.scene, residue[rows])
            chi[rows, k] = pick(k, logits, frame[rows], residue[rows]).to(chi)
            if k + 1 < N_CHI:
                context = self.head.after(context, k, chi[:, k], there)
        return chi
