"""Where side chains lie from three C-alpha atoms: the tables of `stages.trace.contacts`.

    HPCBACKMAP_DATA=FOLDER python benchmarks/recipes/side_chain_centroids.py [--chains 150]

Over training chains of static_more: for each residue type the mean place of the centroid of its heavy
atoms, nm outwards along the bisector of the two links of C-alpha and along the normal of their plane. Then,
with centroids placed by the table, the percentage of residues that have another one, five or more places on,
nearer than each distance.
"""

import argparse
import csv
import os
from collections import defaultdict
from pathlib import Path

import mdtraj
import numpy as np
from scipy.spatial.distance import cdist

from hpcbackmap.stages.trace.contacts import CALPHAS, CENTROIDS, MIXED, SIDE_CHAINS

BACKBONE = ("N", "CA", "C", "O", "OXT")
LONGEST_LINK = 0.4
"""Of C-alpha atoms, nm."""
ALONG = 4
"""Places apart that are near along the chain."""
DISTANCES = sorted({0.32, 0.36, 0.40, CALPHAS, MIXED, SIDE_CHAINS})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=150)
    folder = Path(os.environ["HPCBACKMAP_DATA"]) / "static_more"
    with (folder / "index.csv").open() as file:
        files = [row["file"] for row in csv.DictReader(file) if row["split"] == "train"]
    chosen = files[:: max(1, len(files) // parser.parse_args().chains)]
    places: dict[str, list] = defaultdict(list)
    counts = np.zeros((3, len(DISTANCES)))
    residues = 0
    for file in chosen:
        found = list(frames(mdtraj.load(str(folder / file))))
        for name, _, axes, side in found:
            if side is not None:
                places[name].append(axes @ side)
        residues += len(found)
        counts += near(found)
    for name in sorted(places):
        outwards, across = np.mean(places[name], 0)
        print(f"{name} {len(places[name]):6d} {outwards:.3f} {across:.3f}")
    print("nearer than (nm):", *DISTANCES)
    for name, row in zip(("C-alpha", "C-alpha and centroid", "centroids"), counts, strict=True):
        print(f"{name}: % of residues", *np.round(100 * row / residues, 2))


def frames(chain: mdtraj.Trajectory):
    """Of each residue between two others: name, C-alpha, axes [2, 3], side chain's centroid from C-alpha."""
    xyz, residues = chain.xyz[0].astype(float), list(chain.topology.residues)
    calpha = [[a.index for a in residue.atoms if a.name == "CA"] for residue in residues]
    for number in range(1, len(residues) - 1):
        if not all(calpha[number - 1 : number + 2]):
            continue
        before, own, after = (xyz[calpha[number + k][0]] for k in (-1, 0, 1))
        back, ahead = own - before, after - own
        if max(np.linalg.norm(back), np.linalg.norm(ahead)) > LONGEST_LINK:
            continue
        axes = np.stack([back - ahead, np.cross(back, ahead)])
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        side = [
            a.index
            for a in residues[number].atoms
            if a.name not in BACKBONE and a.element.symbol != "H"
        ]
        yield residues[number].name, own, axes, xyz[side].mean(0) - own if side else None


def near(found: list[tuple]) -> np.ndarray:
    """Pairs nearer than each of DISTANCES, of C-alpha atoms, of one and a centroid, of centroids: [3, D]."""
    calpha = np.array([own for _, own, _, _ in found])
    place = [np.array(CENTROIDS.get(name, (0, 0))) @ axes for name, _, axes, _ in found]
    sides, number = calpha + np.array(place), np.arange(len(found))
    far = np.abs(number[:, None] - number) > ALONG
    rows = []
    for first, second, share in ((calpha, calpha, 0.5), (calpha, sides, 1), (sides, sides, 0.5)):
        gap = cdist(first, second)[far]
        rows.append([share * (gap < distance).sum() for distance in DISTANCES])
    return np.array(rows)


if __name__ == "__main__":
    main()
