"""The steric term of the loss: side chains that clash with generated neighbours become less likely."""

import torch
from torch import Tensor

from hpcbackmap.stages.genzprot.clashes import overlaps
from hpcbackmap.stages.genzprot.dense_atoms import side_chain_rows
from hpcbackmap.stages.genzprot.place_side_chains import SideChains, moving_rows
from hpcbackmap.stages.genzprot.torsions import draw, log_density

__all__ = ["STERIC_DRAWS", "steric_term"]

STERIC_DRAWS = 2
"""Of every side chain, each the other's baseline."""

FULL_CLASH = 0.1
"""Overlap (nm) that counts as one clash."""


def steric_term(chains: SideChains, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What lowers the clashes of side chains drawn among those of a scene, and clashes per residue.

    The first is the score-function estimator of the gradient (Williams 1992): two draws of every side
    chain, each the other's baseline. noise [F, R, 2, N_CHI]: standard normals that they stand for.
    """
    scene = chains.scene
    (frame, residue), counts = moving_rows(chains.system, len(scene.near))
    everyone = torch.ones_like(scene.near[frame, residue], dtype=torch.bool)
    clashes, scores = [], []
    for columns in noise.unbind(-2):
        score = torch.zeros_like(columns[..., 0])

        def pick(
            k: int,
            logits: Tensor,
            f: Tensor,
            r: Tensor,
            columns: Tensor = columns,
            score: Tensor = score,
        ) -> Tensor:
            angle = draw(logits.detach(), columns[f, r, k])
            score[f, r] = score[f, r] + log_density(logits, angle)
            return angle

        chi = chains.choose(frame, residue, everyone, pick, counts)
        with torch.no_grad():
            depth = overlaps(side_chain_rows(scene, chi, frame, residue), scene, frame, residue)
        clashes.append((depth / FULL_CLASH).clamp_max(1.0))
        scores.append(score[frame, residue])
    difference = 0.5 * (clashes[0] - clashes[1]) * (scores[0] - scores[1])
    return difference.mean(), (clashes[0] + clashes[1]).mean() / 2
