"""Ramachandran regions: phi and psi of most residues of crystals, and those that hardly any residue has.

The favoured regions hold 96 % and the allowed ones 99 % of the residues of 5,311 crystal chains of all
qualities (benchmarks/recipes/ramachandran.py), for glycine, proline, residues before proline and all others.
"""

import json
from functools import cache
from importlib import resources

import numpy as np

__all__ = ["BINS", "KINDS", "kind_of", "regions"]

BINS = 72
KINDS = ("general", "glycine", "proline", "before proline")


def kind_of(residue: str, following: str) -> int:
    """Which of `KINDS` a residue is, by its name and that of the residue bonded to its C."""
    if residue in ("GLY", "PRO"):
        return KINDS.index("glycine" if residue == "GLY" else "proline")
    return KINDS.index("before proline" if following == "PRO" else "general")


@cache
def regions(name: str) -> np.ndarray:
    """Bins of each kind in ``allowed`` or ``favoured`` regions, phi by psi from -pi: bool [4, BINS, BINS]."""
    text = resources.files("hpcbackmap.protein").joinpath("ramachandran.json").read_text()
    table = json.loads(text)[name]
    rows = [np.frombuffer(bytes.fromhex(table[kind]), dtype=np.uint8) for kind in KINDS]
    return np.unpackbits(np.stack(rows), axis=1).astype(bool).reshape(len(KINDS), BINS, BINS)
