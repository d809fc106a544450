"""Single chains with all heavy atoms: those that every rung learns from, and unseen ones to judge by."""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import Topology

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes"))
from campaign import read_chains
from heavy_atoms import UNSEEN, read_unseen

__all__ = ["Chain", "load_chains", "stretch", "unseen_chains"]

LONGEST = 300
"""Residues of an example at most; a longer chain is cut at random."""


@dataclass(frozen=True)
class Chain:
    """atoms: heavy atoms float32 [A, 3], nm, about their mean. cluster: related chains share it."""

    name: str
    cluster: str
    topology: Topology
    atoms: np.ndarray


def data_folder() -> Path:
    if "HPCBACKMAP_DATA" not in os.environ:
        sys.exit("set HPCBACKMAP_DATA to the folder of the protein chains")
    return Path(os.environ["HPCBACKMAP_DATA"])


def load_chains(cache: Path, limit: int | None = None) -> list[Chain]:
    """Chains of the training split of the recipes. Reading them takes minutes: ``cache`` keeps them."""
    if not cache.exists():
        rows = {n: row for n, row in read_chains(data_folder()).items() if row["split"] == "train"}
        rows = dict(list(rows.items())[:limit])
        read = [_read(row["path"]) for row in rows.values()]
        np.savez(
            cache,
            names=np.array(list(rows)),
            clusters=np.array([row["cluster"] for row in rows.values()]),
            topologies=np.array([json.dumps(topology.to_dict()) for topology, _ in read]),
            atoms=np.concatenate([atoms for _, atoms in read]),
        )
    kept, chains, start = np.load(cache), [], 0
    atoms = kept["atoms"]
    for name, cluster, text in zip(
        *(kept[key].tolist() for key in ("names", "clusters", "topologies")), strict=True
    ):
        topology = Topology.from_dict(json.loads(text))
        stop = start + topology.n_atoms
        chains.append(Chain(name, cluster, topology, atoms[start:stop]))
        start = stop
    return chains


def _read(path: Path) -> tuple[Topology, np.ndarray]:
    frame = mdtraj.load(str(path))
    topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], str(path))
    atoms = frame.xyz[0, index]
    return topology, atoms - atoms.mean(0)


def stretch(chain: Chain, rng: np.random.Generator) -> Chain:
    """The chain, or `LONGEST` residues of it."""
    n = chain.topology.n_residues
    if n <= LONGEST:
        return chain
    first = int(rng.integers(n - LONGEST + 1))
    own = slice(first, first + LONGEST)
    whole = chain.topology
    topology = replace(
        whole,
        sequence=whole.sequence[own],
        chain_index=whole.chain_index[own],
        residue_numbers=whole.residue_numbers[own],
        bonded=(False, *whole.bonded[own][1:]),
        has_oxt=whole.has_oxt[own],
        insertion_codes=whole.insertion_codes[own],
        disulphides=tuple(
            (i - first, j - first)
            for i, j in whole.disulphides
            if first <= min(i, j) and max(i, j) < own.stop
        ),
    )
    inside = (whole.atom_residue >= first) & (whole.atom_residue < own.stop)
    return Chain(chain.name, chain.cluster, topology, chain.atoms[inside])


def unseen_chains(least: int, count: int | None) -> list[Chain]:
    """Test chains of ``least`` residues or more, of families never trained on; ``count`` evenly chosen."""
    found = [
        Chain(each.name, each.name, each.topology, each.positions[0])
        for each in read_unseen(data_folder(), *UNSEEN["unseen"])
        if each.topology.n_residues >= least
    ]
    if count is None or count >= len(found):
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, count).round().astype(int)]
