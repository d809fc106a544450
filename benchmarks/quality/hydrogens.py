"""Hydrogens against those of NMR models, by how they are placed, and what they cost.

python benchmarks/quality/hydrogens.py

Wants HPCBACKMAP_DATA with nmr/*.pdb.gz (models with hydrogens) and adenylate_kinase/adk_dims_a_top.pdb.
"""

import gzip
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.protonation import protonation_states
from hpcbackmap.protein.hydrogens import Hydrogens, hydrogens_of
from hpcbackmap.protein.named_residues import topology_from_mdtraj

sys.path.insert(0, str(Path(__file__).parents[1]))
from header import header

DATA = Path(os.environ["HPCBACKMAP_DATA"])
MODELS, REPEATS = 4, 8


def models(path: Path) -> mdtraj.Trajectory:
    with tempfile.NamedTemporaryFile(suffix=".pdb") as file:
        file.write(gzip.decompress(path.read_bytes()))
        file.flush()
        return mdtraj.load(file.name, standard_names=False)[:MODELS]


def distances(real: mdtraj.Trajectory, source: str, found: dict[str, list[float]]) -> None:
    """Angstrom between hydrogens of one name, by kind."""
    topology, index, _ = topology_from_mdtraj(real.topology, real.xyz[0], source)
    states = tuple("HIP" if name == "HIS" else "" for name in topology.sequence)
    topology = replace(topology, protonation=states)
    hydrogens: Hydrogens = hydrogens_of(topology)
    made = add_hydrogens(topology, real.xyz[:, index])
    owners = {
        int(r): real.topology.atom(int(i)).residue
        for r, i in zip(topology.atom_residue, index, strict=True)
    }
    kinds = [group.kind for group in hydrogens.groups for _ in group.names]
    for number, (name, residue) in enumerate(zip(hydrogens.names, hydrogens.residue, strict=True)):
        there = [atom.index for atom in owners[int(residue)].atoms if atom.name == name]
        for atom in there:
            gap = np.linalg.norm(real.xyz[:, atom] - made[:, number], axis=-1)
            found[kinds[number]] += (10 * gap).tolist()


def milliseconds() -> tuple[float, int]:
    """CPU time of a structure of adenylate kinase, and its residues."""
    path = str(DATA / "adenylate_kinase/adk_dims_a_top.pdb")
    real = mdtraj.load(path)[:1]
    topology, index, _ = topology_from_mdtraj(real.topology, real.xyz[0], path)
    heavy = np.repeat(real.xyz[:, index], 4, axis=0)
    topology = replace(topology, protonation=protonation_states(topology, heavy, 7.0))
    add_hydrogens(topology, heavy)
    begun = time.process_time()
    for _ in range(REPEATS):
        add_hydrogens(topology, heavy)
    return 1000 * (time.process_time() - begun) / REPEATS / len(heavy), topology.n_residues


def main() -> None:
    found: dict[str, list[float]] = defaultdict(list)
    for path in sorted((DATA / "nmr").glob("*.pdb.gz")):
        distances(models(path), str(path), found)
    print(*header("Hydrogens against those of NMR models"), sep="\n")
    print("\n| kind | hydrogens | median Å | 95 % below Å |\n|---|---|---|---|")
    for kind, values in sorted(found.items()):
        median, most = np.percentile(values, [50, 95])
        print(f"| {kind} | {len(values)} | {median:.3f} | {most:.3f} |")
    cost, residues = milliseconds()
    print(f"\n{cost:.1f} CPU-ms a structure of {residues} residues.")


if __name__ == "__main__":
    main()
