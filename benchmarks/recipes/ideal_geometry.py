"""Remake hpcbackmap/protein/ideal.json: mean internal coordinates of crystal structures.

    python benchmarks/recipes/ideal_geometry.py FOLDER_OF_PDB_FILES [-o hpcbackmap/protein/ideal.json]

Medians of distances and angles, circular means of dihedrals, by residue, atom and dihedral role; a key
seen fewer than 20 times is pooled over residues. The shipped table comes from 367 chains of docking
benchmark 5 (PDB coordinates, CC0).
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import mdtraj
import numpy as np
import torch

from hpcbackmap.protein.internal import internal_from_positions
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.zmatrix import Role, build_zmatrix


def collect(folder: Path) -> dict[tuple[str, str, str], list[np.ndarray]]:
    rows = defaultdict(list)
    for path in sorted(folder.glob("*.pdb*")):
        frame = mdtraj.load(str(path))
        topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], path.name)
        z = build_zmatrix(topology)
        anchors = [torch.from_numpy(a) for a in (z.parent, z.grandparent, z.great)]
        positions = torch.from_numpy(frame.xyz[0, index].astype(np.float64))
        internal = internal_from_positions(positions, *anchors).numpy()
        for atom, name in enumerate(topology.atom_names):
            role = Role(z.role[atom])
            residue = topology.sequence[topology.atom_residue[atom]]
            if role != Role.CALPHA:
                rows[residue, name, role.name].append(internal[atom])
                rows["*", name, role.name].append(internal[atom])
    return rows


def summarise(values: list[np.ndarray]) -> list[float]:
    distance, theta, phi = np.array(values).T
    mean = np.angle(np.exp(1j * phi).mean())
    return [
        round(float(np.median(distance)), 5),
        round(float(np.median(theta)), 4),
        round(float(mean), 4),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default="hpcbackmap/protein/ideal.json")
    arguments = parser.parse_args()
    rows = collect(arguments.folder)
    table = {
        " ".join(key): summarise(values)
        for key, values in sorted(rows.items())
        if len(values) >= 20 or key[0] == "*"
    }
    arguments.output.write_text(json.dumps(table, indent=0) + "\n")
    print(f"{len(table)} rows -> {arguments.output}")


if __name__ == "__main__":
    main()
