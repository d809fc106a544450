"""Hydrogens that heavy atoms place, in dense slots behind those of heavy atoms.

They stand where ideal bonds and angles put them, methyl and ammonium groups staggered. Hydroxyl and thiol
hydrogens, which turn freely, are left out, as is what a chain end adds; histidine has that of NE2.

Shapes: F frames, R residues, H hydrogen slots, S = MAX_ATOMS + H slots.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.hydrogens import SIDE_CHAIN_HYDROGENS
from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS, RESIDUES
from hpcbackmap.protein.surfaces import AROMATIC, BONDS, in_ring
from hpcbackmap.stages.genzprot.dense_atoms import AWAY, Scene

__all__ = ["AMIDE", "SLOTS", "Hydrogen", "hydrogens_of_type", "with_hydrogens"]

SLOTS = MAX_ATOMS + 13
"""Enough for arginine and lysine."""
AMIDE = SLOTS - 1
"""Slot of H on the backbone N, which C of the residue before helps to place."""
LEFT_OUT = ("oh", "phenol", "sh")
ALPHA = "HA ch CA N C CB"
ALPHA_OF_GLYCINE = "HA2,HA3 ch2 CA N C"
TETRAHEDRAL, HALF = math.radians(109.5), math.radians(109.5 / 2)
BETWEEN = {"sp2": math.radians(120.0), "ch": math.radians(110.5), "ch2": math.radians(111.5)}
"""Angle of the two neighbours of an atom, by the kind of its hydrogens."""
STAGGERED = tuple(math.radians(turn) for turn in (60.0, 180.0, 300.0))
SIDE = {"CA": -1.0, "ILE CB": -1.0, "LEU CG": 1.0, "THR CB": -1.0, "VAL CB": 1.0}
"""On which side of an atom and its first two neighbours its only hydrogen lies."""


class Hydrogen(NamedTuple):
    """atoms: names of its parent and of two more that place it. local: from the parent in their frame, nm."""

    atoms: tuple[str, str, str]
    local: tuple[float, float, float]


def with_hydrogens(scene: Scene) -> Tensor:
    """Atoms of a scene and the hydrogens that they place [F, R, S, 3], nm; what is not there lies `AWAY`."""
    placed_by, local, there = (table[scene.kind] for table in _tables(scene.atoms.device))
    index = placed_by.flatten(1).unsqueeze(-1).expand(len(scene.atoms), -1, -1, 3)
    parent, first, second = scene.atoms.gather(2, index).unflatten(2, (-1, 3)).unbind(3)
    second[:, :, -1] = scene.atoms[:, scene.before, BACKBONE.index("C")]
    x = torch.nn.functional.normalize(first - parent, dim=-1)
    y = second - parent
    y = torch.nn.functional.normalize(y - (y * x).sum(-1, keepdim=True) * x, dim=-1)
    z = torch.linalg.cross(x, y)
    axes = zip(local.to(parent).split(1, -1), (x, y, z), strict=True)
    for length, axis in axes:
        parent = parent.addcmul(length, axis)
    first_of_chain = scene.before == torch.arange(len(scene.before), device=there.device)
    there[:, -1] &= ~first_of_chain
    return torch.cat([scene.atoms, parent.masked_fill(~there.unsqueeze(-1), AWAY)], 2)


@cache
def hydrogens_of_type(name: str) -> dict[int, Hydrogen]:
    """Hydrogens of a residue type by slot."""
    alpha = ALPHA_OF_GLYCINE if name == "GLY" else ALPHA
    found: list[Hydrogen] = []
    for row in filter(None, [alpha, *SIDE_CHAIN_HYDROGENS[name].split("/")]):
        names, kind, parent, *others = row.split()
        if kind in LEFT_OUT or (name, names) == ("HIS", "HD1"):
            continue
        aromatic = in_ring(name, parent) and parent[0] == "C"
        length = AROMATIC if aromatic else BONDS[parent[0]]
        for way in _directions(name, kind, parent):
            local = (length * way[0], length * way[1], length * way[2])
            found.append(Hydrogen((parent, others[0], others[1]), local))
    slots = dict(enumerate(found, MAX_ATOMS))
    if name != "PRO":
        x, y, z = _opposite(BETWEEN["sp2"], 0.0)
        slots[AMIDE] = Hydrogen(("N", "CA", "C"), (BONDS["N"] * x, BONDS["N"] * y, BONDS["N"] * z))
    return slots


def _directions(name: str, kind: str, parent: str) -> list[tuple[float, float, float]]:
    """Of the hydrogens of a group, in the frame of its parent and two more."""
    if kind in ("ch3", "nh3"):
        return [_turned(TETRAHEDRAL, turn) for turn in STAGGERED]
    if kind == "nh2":
        return [_turned(BETWEEN["sp2"], turn) for turn in (0.0, math.pi)]
    if kind == "ch2":
        return [_opposite(BETWEEN[kind], side * HALF) for side in (-1, 1)]
    side = SIDE[parent if parent == "CA" else f"{name} {parent}"] if kind == "ch" else 0.0
    return [_opposite(BETWEEN[kind], side * HALF)]


def _opposite(between: float, aside: float) -> tuple[float, float, float]:
    """Away from both neighbours, which make the angle ``between``, and ``aside`` of their plane, rad."""
    half = between / 2
    return -math.cos(aside) * math.cos(half), -math.cos(aside) * math.sin(half), math.sin(aside)


def _turned(angle: float, turn: float) -> tuple[float, float, float]:
    """At ``angle`` to the neighbour and dihedral ``turn`` to the atom beyond it, rad."""
    return math.cos(angle), math.sin(angle) * math.cos(turn), math.sin(angle) * math.sin(turn)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of all hydrogen slots of all types: slots that place them [types, H, 3], where they lie in the frame of
    these [types, H, 3], nm, and which there are [types, H].
    """
    placed_by = torch.tensor([1, 0, 2]).repeat(len(RESIDUES), SLOTS - MAX_ATOMS, 1)
    local = torch.zeros(placed_by.shape)
    there = torch.zeros(placed_by.shape[:2], dtype=torch.bool)
    for kind, (name, template) in enumerate(RESIDUES.items()):
        for slot, hydrogen in hydrogens_of_type(name).items():
            here = slot - MAX_ATOMS
            placed_by[kind, here] = torch.tensor([template.atoms.index(a) for a in hydrogen.atoms])
            local[kind, here] = torch.tensor(hydrogen.local)
            there[kind, here] = True
    return placed_by.to(device), local.to(device), there.to(device)
