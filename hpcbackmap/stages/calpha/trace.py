"""C-alpha atoms of an input in any representation of one or more beads per residue.

Shapes: F frames, P particles of the file, R residues; positions in nm.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.protein.residues import RESIDUE_INDEX
from hpcbackmap.resolution.representations.reading import Reading
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import reason
from hpcbackmap.runtime.parsing import json_value
from hpcbackmap.stages.calpha.cis_prolines import proline_odds
from hpcbackmap.stages.calpha.closing import (
    IDEAL,
    POSSIBLE,
    cis_links,
    close_links,
    link_spread,
)
from hpcbackmap.stages.calpha.network import CalphaNetwork
from hpcbackmap.stages.sealed import read_sealed

__all__ = ["FLUCTUATING", "Trace", "calpha_trace", "lasting_cis", "to_calpha"]

WEIGHTS = Path(__file__).parents[2] / "weights" / "calpha"
FLUCTUATING = 0.0115
"""nm; links of a trace that vary by more are bonds of a bead model. In atomistic frames it is 0.004 to
0.008.
"""
PREDICTED_SPREAD = 0.022
"""nm; of links between C-alpha atoms that the network places."""
BLIND = "bb"
"""Beads whose C-alpha atoms alone do not tell cis: the network places both ends of 67 cis links before proline
0.34 to 0.37 nm apart, as those of trans ones.
"""


class Trace(NamedTuple):
    """calpha: float32 [F, R, 3]. moved: how far closing has moved each atom, nm [F, R]. cis: links to the
    residue before that are, bool [F, R].
    """

    calpha: np.ndarray
    moved: np.ndarray
    cis: np.ndarray


def to_calpha(reading: Reading, positions: np.ndarray) -> np.ndarray:
    """C-alpha positions [F, R, 3] of frames [F, P, 3], whole in the periodic box; each frame on its own."""
    return calpha_trace(reading, positions).calpha


@torch.no_grad()
def calpha_trace(
    reading: Reading,
    positions: np.ndarray,
    scatter: float | None = None,
    cis_throughout: Sequence[int] | None = None,
) -> Trace:
    """The same with what closing did. scatter: standard deviation (nm) of the links of the whole input, which
    says better than the few links of a frame whether its trace fluctuates. cis_throughout: residues whose links
    to the ones before are cis in the whole input, instead of what each frame tells.

    Backbone atoms are taken as they are. C-alpha atoms are moved only where a peptide cannot span their
    distance, or, in a trace that fluctuates as bead models do, to ideal links. Other beads go through the
    shipped networks.
    """
    topology, sites = reading.topology, reading.sites
    if "backbone" in sites:
        calpha = positions[:, sites["backbone"][:, 1]].astype(np.float32)
        return Trace(
            calpha, np.zeros(calpha.shape[:2], np.float32), np.zeros(calpha.shape[:2], bool)
        )
    bonded = torch.tensor(topology.bonded)
    proline = torch.tensor([name == "PRO" for name in topology.sequence])
    centre = positions.astype(np.float64).mean(1, keepdims=True)
    local = torch.from_numpy((positions - centre).astype(np.float32))
    beads = None
    if "ca" in sites:
        found = local[:, sites["ca"]]
        spread = link_spread(found, bonded)
        if scatter is not None:
            spread = torch.full_like(spread, scatter)
        steady = (spread < FLUCTUATING).view(-1, 1, 1)
        bounds = torch.where(steady, torch.tensor(POSSIBLE), torch.tensor(IDEAL))
    else:
        beads = _Beads.of(reading, local)
        found = _placed(reading, beads, bonded)
        spread = torch.full((len(found),), PREDICTED_SPREAD)
        bounds = torch.tensor(IDEAL).expand(len(found), -1, -1)
    if cis_throughout is not None:
        cis = torch.zeros(found.shape[:2], dtype=torch.bool)
        cis[:, list(cis_throughout)] = True
    elif beads is None:
        cis = cis_links(found, bonded, proline, spread)
    else:
        cis = _cis_odds(reading, beads, found) > 0
    closed = close_links(found, bonded, cis, bounds.to(found))
    moved = (closed - found).norm(dim=-1)
    return Trace((closed.numpy() + centre).astype(np.float32), moved.numpy(), cis.numpy())


@torch.no_grad()
def lasting_cis(reading: Reading, positions: np.ndarray) -> tuple[int, ...] | None:
    """Residues whose links to the ones before are cis in frames [F, P, 3] taken together; None for beads that
    hold C-alpha atoms. Prolines turn in seconds: what frames say of one is said of all.
    """
    if {"ca", "backbone"} & set(reading.sites) or not len(positions):
        return None
    centre = positions.astype(np.float64).mean(1, keepdims=True)
    beads = _Beads.of(reading, torch.from_numpy((positions - centre).astype(np.float32)))
    found = _placed(reading, beads, torch.tensor(reading.topology.bonded))
    odds = _cis_odds(reading, beads, found).median(0).values
    return tuple(torch.nonzero(odds > 0).squeeze(-1).tolist())


def _cis_odds(reading: Reading, beads: "_Beads", found: Tensor) -> Tensor:
    """Log odds of a cis link before each residue, [F, R]: above 0 only before prolines."""
    bonded = torch.tensor(reading.topology.bonded)
    proline = torch.tensor([name == "PRO" for name in reading.topology.sequence])
    alone = -torch.ones(found.shape[:2])
    if beads.role != BLIND:
        spread = torch.full((len(found),), PREDICTED_SPREAD)
        alone += 2 * (cis_links(found, bonded, proline, spread) & proline)
    if "calpha" in reading.sites:
        placed = ~torch.from_numpy(reading.sites["calpha"])
        bonded = bonded & placed & placed.roll(1)
    odds = proline_odds(beads.role, beads.positions, found, bonded, proline)
    return torch.where(odds.isnan(), alone, odds)


class _Beads(NamedTuple):
    """role: of the network that places C-alpha atoms from positions [F, R, 1 or 2, 3]."""

    role: str
    positions: Tensor

    @classmethod
    def of(cls, reading: Reading, local: Tensor) -> "_Beads":
        (role,) = {"com", "bb", "sc"} & set(reading.sites)
        site = local[:, reading.sites[role]]
        if role != "bb" or reading.beads is None:
            return cls(role, site.unsqueeze(2))
        role = "martini2" if reading.representation == "martini2" else "bb_sc"
        return cls(role, torch.stack([site, _side_centres(reading, local, site)], 2))


def _placed(reading: Reading, beads: _Beads, bonded: Tensor) -> Tensor:
    """C-alpha atoms that the networks make of beads, [F, R, 3]."""
    types = torch.tensor([RESIDUE_INDEX[name] for name in reading.topology.sequence])
    site = beads.positions[:, :, 0]
    found = _network(beads.role)(beads.positions, types, bonded)[-1]
    if "calpha" in reading.sites:
        same = torch.from_numpy(reading.sites["calpha"])
        found = torch.where(same.unsqueeze(-1), site, found)
    return torch.where(_alone(bonded).unsqueeze(-1), site, found)


def _side_centres(reading: Reading, local: Tensor, site: Tensor) -> Tensor:
    """Centre of mass of the side-chain beads of each residue [F, R, 3]; the site where it has none."""
    beads = reading.beads
    assert beads is not None
    residue = torch.from_numpy(beads.residue)
    weight = torch.from_numpy(beads.weights)
    total = torch.zeros(site.shape[1]).index_add(0, residue, weight)
    summed = torch.zeros_like(site).index_add(
        1, residue, local[:, beads.particles] * weight.unsqueeze(-1)
    )
    return torch.where(
        (total > 0).unsqueeze(-1), summed / total.clamp_min(1e-6).unsqueeze(-1), site
    )


def _alone(bonded: Tensor) -> Tensor:
    """Residues of stretches of one or two, which have no direction of their own, bool [R]."""
    stretch = (~bonded).long().cumsum(0)
    return torch.bincount(stretch)[stretch] < 3


@cache
def _network(role: str) -> CalphaNetwork:
    """The shipped network from beads of this role. InputError where the installation lacks it."""
    path = WEIGHTS / f"{role}-ca.safetensors"
    weights, metadata = read_sealed(path)
    try:
        network = CalphaNetwork(**json_value(metadata["shape"]))
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no network from {role} to C-alpha ({reason(error)})") from None
    return network.eval()
