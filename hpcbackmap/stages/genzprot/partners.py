"""Polar side chains of a member that meet no partner draw again, and prefer hydrogen bonds and salt bridges.

Of several draws given all others and the one that is there one stays: by chance, its weight the exponential of
what it gains. Where others stand as in crystals, draws of the shipped network have too few N and O in contact,
by .8 nats in salt bridges and .45 in other hydrogen bonds (0.27 to 0.30 nm), and none too few farther off; of a
member others are not where they ought to be either, and meeting them is worth three times as much.

Shapes: F frames, R residues, K neighbour residues, n rows (residues of frames), C candidates, D polar atoms of
a side chain, P pairs of a row and a polar atom of another residue.
"""

from functools import cache

import torch
from torch import Tensor

from hpcbackmap.protein.hydrogens import SIDE_CHAIN_HYDROGENS
from hpcbackmap.protein.residues import BACKBONE, RESIDUE_INDEX, RESIDUES
from hpcbackmap.protein.side_chain import CB, N_CHI
from hpcbackmap.stages.genzprot.dense_atoms import Scene, add_side_chains, side_chain_rows
from hpcbackmap.stages.genzprot.place_side_chains import CHI, SideChains, moving_rows
from hpcbackmap.stages.genzprot.restraints import held_rows
from hpcbackmap.stages.genzprot.torsions import draw

__all__ = ["DRAWN", "gains", "meet"]

DRAWN = 4
"""Draws of each side chain beside the one that is there."""
TURNS = (("ASP", "GLU", "SER", "THR"), ("ASN", "GLN", "HIS"), ("LYS", "ARG"))
"""Which residue types draw at a time: the longest last, and hardly any two together that bind each other. Large
rings stay: their one polar atom is not worth turning them."""
SALT_BRIDGE, HYDROGEN_BOND = 2.5, 1.5
"""Nats of a pair of N and O."""
MET, APART = 0.31, 0.35
"""nm; a pair counts in full below, and not at all beyond."""
PRESSED, SOFTNESS = 0.26, 0.02
"""Polar atoms that are nearer cost, and so much nearer a nat, nm."""
GIVES, TAKES, PLUS, MINUS = 1, 2, 4, 8
CHARGES = {"LYS": PLUS, "ARG": PLUS, "ASP": MINUS, "GLU": MINUS}
POLAR = 3
"""Most N and O of a side chain."""
NO_SLOT = -1


def meet(chains: SideChains, columns: Tensor, choice: Tensor) -> None:
    """Polar side chains without a partner draw again, but for those that beads hold.

    columns: standard normals of the draws [F, R, DRAWN, N_CHI]; choice: of the choice [F, R].
    """
    scene = chains.scene
    (frame, residue), _ = moving_rows(chains.system, len(scene.near))
    turn = _turns(residue.device)[scene.kind[residue]]
    for number in range(len(TURNS)):
        (rows,) = torch.nonzero(turn == number, as_tuple=True)
        here, own = frame[rows], residue[rows]
        alone = (
            gains(scene.atoms[here, own].unsqueeze(1), scene, here, own)[:, 0] < HYDROGEN_BOND / 2
        )
        if scene.beads is not None:
            alone &= ~held_rows(scene, here, own)
        here, own = here[alone], own[alone]
        if len(here):
            add_side_chains(scene, _chosen(chains, here, own, columns, choice), here, own)


def _chosen(
    chains: SideChains, frame: Tensor, residue: Tensor, columns: Tensor, choice: Tensor
) -> Tensor:
    """What stays of rows (frame, residue) [n]: atoms [n, MAX_ATOMS, 3]."""
    scene = chains.scene
    side = _draws(chains, frame, residue, columns[frame, residue])
    side = torch.cat([scene.atoms[frame, residue].unsqueeze(1), side], 1)
    share = gains(side, scene, frame, residue).softmax(-1).cumsum(-1)
    level = torch.special.ndtr(choice[frame, residue]) * share[:, -1]
    best = torch.searchsorted(share, level.unsqueeze(-1)).squeeze(-1).clamp_max(side.shape[1] - 1)
    return side[torch.arange(len(best), device=best.device), best]


def _draws(chains: SideChains, frame: Tensor, residue: Tensor, columns: Tensor) -> Tensor:
    """Side chains that ``columns`` [n, C, N_CHI] stand for, given all others: [n, C, MAX_ATOMS, 3]."""
    scene, head, count = chains.scene, chains.head, columns.shape[1]
    everyone = torch.ones_like(scene.near[frame, residue], dtype=torch.bool)
    seen = head.see(chains.h[frame, residue], scene, frame, residue, everyone)
    frames, residues = frame.repeat_interleave(count), residue.repeat_interleave(count)
    there = chains.system.torsion_mask[residues][:, CHI]
    normals, chi = columns.flatten(0, 1), columns.new_zeros(len(residues), N_CHI)
    logits = head.logits(seen, 0, scene, residue).repeat_interleave(count, 0)
    context = seen.repeat_interleave(count, 0)
    rows = torch.arange(len(residues), device=residues.device)
    for k in range(N_CHI):
        if k:
            kept = there[rows, k]
            context = head.after(context[kept], k - 1, chi[rows[kept], k - 1], kept[kept])
            rows = rows[kept]
            logits = head.logits(context, k, scene, residues[rows])
        chi[rows, k] = draw(logits, normals[rows, k]).to(chi)
    found: Tensor = side_chain_rows(scene, chi, frames, residues).unflatten(0, (-1, count))
    return found


def gains(side: Tensor, scene: Scene, frame: Tensor, residue: Tensor) -> Tensor:
    """Nats of what candidates ``side`` [n, C, MAX_ATOMS, 3] of rows (frame, residue) meet, [n, C]."""
    slots, worth = _tables(side.device)
    kind, near = scene.kind[residue], scene.near[frame, residue]
    theirs = scene.kind[near]
    others = scene.atoms[frame[:, None, None], near.unsqueeze(-1), slots[theirs].clamp_min(0)]
    if scene.shift is not None:
        others = others + scene.shift[frame, residue].unsqueeze(-2)
    own = slots[kind, 2:]
    wanted = own.clamp_min(0)[:, None, :, None].expand(-1, side.shape[1], -1, 3)
    atoms, middle = side.gather(2, wanted), scene.atoms[frame, residue, CB]
    extent = (atoms - middle[:, None, None]).square().sum(-1).amax((1, 2)).sqrt() + APART
    within = (others - middle[:, None, None]).square().sum(-1) < extent.square()[:, None, None]
    within &= (slots[theirs] != NO_SLOT) & (near != residue.unsqueeze(-1)).unsqueeze(-1)
    if scene.valid is not None:
        within &= scene.valid[frame, residue].unsqueeze(-1)
    row, place, slot = torch.nonzero(within, as_tuple=True)
    gap = atoms.index_select(0, row) - others[row, place, slot][:, None, None]
    gap = gap.square().sum(-1).sqrt()
    met = ((APART - gap) / (APART - MET)).clamp(0, 1)
    met = met * worth[kind[row], :, theirs[row, place], slot].unsqueeze(1).to(gap)
    pressed = (PRESSED - gap).clamp_min(0) / SOFTNESS * (own[row] != NO_SLOT).unsqueeze(1)
    return gap.new_zeros(side.shape[:2]).index_add_(0, row, (met - pressed).sum(-1))


@cache
def _turns(device: torch.device) -> Tensor:
    """Which of `TURNS` each residue type is in, their number for none [types]."""
    found = torch.full((len(RESIDUES),), len(TURNS))
    for number, names in enumerate(TURNS):
        found[[RESIDUE_INDEX[name] for name in names]] = number
    return found.to(device)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Slots of N, O and polar atoms of the side chain by type [types, 2 + D]; nats of such an atom of a side
    chain with each of another residue [types, D, types, 2 + D].
    """
    slots = torch.full((len(RESIDUES), 2 + POLAR), NO_SLOT)
    features = torch.zeros(slots.shape, dtype=torch.int64)
    for kind, (name, template) in enumerate(RESIDUES.items()):
        side = [atom for atom in template.atoms if atom[0] in "NO" and atom not in BACKBONE]
        for place, atom in enumerate(("N", "O", *side)):
            slots[kind, place] = template.atoms.index(atom)
            features[kind, place] = _features(name, atom)
    mine, other = features[:, 2:, None, None], features

    def pair(one: int, two: int) -> Tensor:
        return ((mine & one) > 0) & ((other & two) > 0) | ((mine & two) > 0) & ((other & one) > 0)

    worth = torch.where(pair(PLUS, MINUS), SALT_BRIDGE, HYDROGEN_BOND * pair(GIVES, TAKES))
    return slots.to(device), worth.to(device)


def _features(name: str, atom: str) -> int:
    """What an N or O of a residue type can do, as bits; histidine's both give and take."""
    if atom in BACKBONE:
        return TAKES if atom == "O" else GIVES * (name != "PRO")
    hydrogens = SIDE_CHAIN_HYDROGENS[name].split("/")
    gives = any(row.split()[2] == atom for row in hydrogens)
    return GIVES * gives | TAKES * (atom[0] == "O" or name == "HIS") | CHARGES.get(name, 0)
