"""Beads to finer beads, C-alpha or heavy atoms of one protein, in space, after CGVAE (Wang et al. 2022).

Differences from the reference: invariant message passing in right-handed frames, so that handedness is
learned; every bead sees its nearest neighbours whatever their distance; no link between channels and bead
size; exact re-centring onto the beads; exact likelihood and KL; a closed form to start from, so that the
latents are in use from the first step. An elastic network and the closing projection have the last word on a
structure; the ELBO is that of the decoder before them.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.cartesian import CartesianStage
from hpcbackmap.stages.cgvae.bead_network import BeadNetwork
from hpcbackmap.stages.layers.bead_system import BeadSystem, bead_system
from hpcbackmap.stages.layers.close_trace import close_calpha, recentre

__all__ = ["Cgvae"]


class Cgvae(CartesianStage[BeadSystem]):
    kind = "cgvae"
    fitted = True
    network: BeadNetwork
    ladder: Ladder

    def __init__(self, fine: str, coarse: str, config: CgvaeConfig, ladder: Ladder):
        super().__init__(fine, coarse, config, BeadNetwork(config, ladder, fine, coarse))
        self.ladder = ladder
        self.noisy = ladder.is_calpha(fine)
        if self.noisy:
            self.noise_width += 3 * int(np.bincount(ladder.mapping(coarse).bead).max())

    def describe(self, ladder: Ladder) -> BeadSystem:
        self.require_molecule(ladder)
        return bead_system(ladder, self.fine, self.coarse)

    def sample(self, coarse: Tensor, system: BeadSystem, noise: Tensor) -> Tensor:
        context = self._context(coarse, system)
        noise, rest = noise[..., : self.latent], noise[..., self.latent :]
        swing = self.network.swing
        positions, log_spread = self._decode(
            context, self._prior(context).at(swing * noise), coarse, system
        )
        if self.noisy:
            white = rest.unflatten(-1, (-1, 3))[:, system.bead_of, system.slot]
            white = torch.einsum("fnij,fni->fnj", context["frames"][:, system.bead_of], white)
            spread = swing * log_spread.exp()[:, system.bead_of].unsqueeze(-1)
            positions = positions + recentre(spread * white, system)
        return self._closed(positions, context, system, rest)

    def _closed(
        self, positions: Tensor, context: Any, system: BeadSystem, noise: Tensor | None
    ) -> Tensor:
        """Stiff distances, then for C-alpha traces the closing projection."""
        if self.network.elastic is not None:
            positions = self.network.elastic(positions)
        if not self.noisy:
            return positions
        return close_calpha(positions, system, self.network.cis[system.bond_index[:, 1]])
