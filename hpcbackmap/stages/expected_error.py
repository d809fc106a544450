"""How far a residue of a generated structure is likely to be from the truth: confidence for each residue.

A small network for each kind of input reads what the structure itself shows (residue type, burial, the shape
of the chain around it, how many residues its bead stands for). It was fitted to the errors that the shipped
stages make on proteins that they were not trained on (`benchmarks/recipes/train_expected_error.py`), so that
its mean is right, and depends on one structure alone.

Shapes: S structures, R residues, A heavy atoms; positions nm.
"""

from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcbackmap.protein.neighbours import pairs_within
from hpcbackmap.protein.residues import RESIDUE_INDEX
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.sealed import read_sealed

__all__ = ["FEATURES", "expected_error", "residue_features"]

WEIGHTS = Path(__file__).parents[1] / "weights" / "expected-error" / "model.safetensors"
RADII = (0.6, 0.8, 1.0, 1.4)
"""nm; side-chain centres within these of a residue's own are counted."""
CROWD = (3.0, 6.0, 12.0, 30.0)
"""Counts are divided by these, so that they are near one."""
STEPS = ((-1, 1), (0, 2), (-2, 0), (0, 3), (-3, 0), (-2, 2))
"""Pairs of residues around one, whose C-alpha distances tell helices, strands and turns."""
USUAL = (0.6, 0.6, 0.6, 0.8, 0.8, 0.9)
"""nm; stands for these distances where a chain ends."""
FEATURES = len(RESIDUE_INDEX) + len(RADII) + len(STEPS) + 2 + 3


def expected_error(ladder: Ladder, positions: np.ndarray, kind: str, mode: bool) -> np.ndarray:
    """Expected root mean square displacement of each residue's heavy atoms, nm, float32 [S, R].

    positions: heavy atoms [S, A, 3]. kind: what the structures were made from, a representation (``ca``,
    ``com``, …) or a resolution of ``ladder``. mode: they are one answer, not members. Structures that could
    not be made, which are no numbers, have none.
    """
    topology = ladder.topology
    name = kind
    spread = bead_features(ladder, kind)
    if spread is not None:
        name = "beads"
    layers = _network(name)
    found = np.full((len(positions), topology.n_residues), np.nan, np.float32)
    for number in np.flatnonzero(np.isfinite(positions).all(axis=(1, 2))):
        x = residue_features(topology, positions[number], spread)
        for weight, bias in layers[:-1]:
            x = np.tanh(x @ weight.T + bias)
        weight, bias = layers[-1]
        found[number] = np.exp((x @ weight.T + bias)[:, 0 if mode else 1])
    return found


def residue_features(
    topology: Topology, frame: np.ndarray, beads: np.ndarray | None = None
) -> np.ndarray:
    """What the networks read of one structure [A, 3]: [R, `FEATURES`]. beads: of `bead_features`."""
    n, fixed = topology.n_residues, _fixed(topology)
    calpha = frame[topology.ca_index].astype(np.float64)
    centres = np.zeros((n, 3))
    np.add.at(centres, fixed.residue, frame[fixed.side])
    centres /= fixed.atoms[:, None]
    pairs = pairs_within(centres, RADII[-1])
    apart = np.linalg.norm(centres[pairs[:, 0]] - centres[pairs[:, 1]], axis=1)
    counts = [
        np.bincount(pairs[apart < radius].ravel(), minlength=n) / usual
        for radius, usual in zip(RADII, CROWD, strict=True)
    ]
    distances = [
        _along(calpha, fixed.stretch, step, usual) for step, usual in zip(STEPS, USUAL, strict=True)
    ]
    if beads is None:
        beads = np.zeros((n, 3))
    return np.column_stack([fixed.types, *counts, *distances, fixed.ends, beads])


def bead_features(ladder: Ladder, kind: str) -> np.ndarray | None:
    """Of a resolution with beads of several residues: how many a residue's bead has, where in it the residue
    is, and whether the bead is its chain's first or last, [R, 3]. None for other kinds.
    """
    if kind not in ladder.resolutions or ladder.is_calpha(kind) or kind == ladder.resolutions[0]:
        return None
    topology = ladder.topology
    bead = np.asarray(ladder.composed(kind).bead)[topology.ca_index]
    size = np.bincount(bead)[bead]
    first = np.full(bead.max() + 1, len(bead))
    np.minimum.at(first, bead, np.arange(len(bead)))
    place = np.arange(len(bead)) - first[bead]
    off = np.abs(2 * place + 1 - size) / size
    stretch = np.cumsum(~np.asarray(topology.bonded))
    last = np.zeros(len(bead))
    for chain in np.unique(stretch):
        rows = np.flatnonzero(stretch == chain)
        last[rows] = (bead[rows] == bead[rows[0]]) | (bead[rows] == bead[rows[-1]])
    return np.column_stack([np.log(size), off, last])


class _Fixed(NamedTuple):
    """Of one molecule. types [R, 20]; side, residue: atoms of side chains with C-alpha, and their residues;
    atoms [R]: how many these are; stretch [R]: number of the unbroken piece of chain; ends [R, 2].
    """

    types: np.ndarray
    side: np.ndarray
    residue: np.ndarray
    atoms: np.ndarray
    stretch: np.ndarray
    ends: np.ndarray


@lru_cache(maxsize=8)
def _fixed(topology: Topology) -> _Fixed:
    n = topology.n_residues
    types = np.zeros((n, len(RESIDUE_INDEX)))
    types[np.arange(n), [RESIDUE_INDEX[name] for name in topology.sequence]] = 1
    side = np.flatnonzero(~np.isin(topology.atom_names, ("N", "C", "O", "OXT")))
    residue = topology.atom_residue[side]
    stretch = np.cumsum(~np.asarray(topology.bonded))
    ends = np.stack([_to_end(stretch), _to_end(stretch[::-1])[::-1]], axis=1)
    return _Fixed(types, side, residue, np.bincount(residue, minlength=n), stretch, ends)


def _along(
    calpha: np.ndarray, stretch: np.ndarray, step: tuple[int, int], usual: float
) -> np.ndarray:
    """Distance between the residues ``step`` before and after each, ``usual`` beyond ends of chains, [R]."""
    n = len(calpha)
    first, last = (np.arange(n) + shift for shift in step)
    inside = (first >= 0) & (last < n)
    first, last = np.clip(first, 0, n - 1), np.clip(last, 0, n - 1)
    inside &= stretch[first] == stretch[last]
    return np.where(inside, np.linalg.norm(calpha[first] - calpha[last], axis=1), usual)


def _to_end(stretch: np.ndarray) -> np.ndarray:
    """1 for the first residue of each stretch, 0.5 for the next, then 0."""
    starts = np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1))
    found = np.zeros(len(stretch))
    second = starts + 1
    second = second[second < len(stretch)]
    found[second] = 0.5
    found[starts] = 1.0
    return found


@cache
def _network(kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of the layers for a kind of input; those for ``ca`` where it has none of its own."""
    tensors, _ = read_sealed(WEIGHTS)
    if f"{kind}.0.weight" not in tensors:
        kind = "ca"
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    while f"{kind}.{len(layers)}.weight" in tensors:
        weight, bias = (tensors[f"{kind}.{len(layers)}.{part}"] for part in ("weight", "bias"))
        layers.append((weight.numpy(), bias.numpy()))
    return layers
