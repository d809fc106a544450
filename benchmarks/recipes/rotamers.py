"""Makes hpcbackmap/metrics/rotamers.json: where side-chain torsions of crystals are.

python benchmarks/recipes/rotamers.py DATA     DATA: folder with static_3, static_more and static_bm5

Residues of the training chains (`campaign.read_chains`) of crystals of 1.8 Å or better whose atoms all have a
B factor of 30 Å^2 at most: with crystals of all qualities the regions are wider.
For each kind of residue a grid over all of its torsions, smoothed; a bin is in a region if its density is at
least that which a share of the residues has around it, its own left out: 98 % (favoured) and 99.7 % (allowed),
the shares of MolProbity's rotamers (Lovell et al. 2000; Hintze et al. 2016). Prints, of chains held out, what
share lies outside, and what share of side chains would if they were turned at random.
"""

import base64
import gzip
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from campaign import read_chains
from scipy.ndimage import gaussian_filter

from hpcbackmap.metrics.rotamer_regions import BINS, place_of
from hpcbackmap.protein.residues import RESIDUES, Placement
from hpcbackmap.protein.torsions import SYMMETRIC

SMOOTH = {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.8}
"""Width of the smoothing by number of torsions, bins."""
OUTSIDE = {"allowed": 0.003, "favoured": 0.02}
RESOLUTION, LARGEST_B = 1.8, 30.0
"""Å, Å^2."""
TARGET = Path(__file__).parents[2] / "hpcbackmap" / "metrics" / "rotamers.json"


def main() -> None:
    data = Path(sys.argv[1])
    rows = list(read_chains(data).values())
    sharp = [row for row in rows if float(row.get("resolution_A") or np.inf) <= RESOLUTION]
    paths = [row["path"] for row in sharp if row["split"] == "train"]
    train = torsions_of(paths, LARGEST_B)
    table: dict = {"chains": len(paths), "residues": {k: len(x) for k, x in sorted(train.items())}}
    table["outside"] = OUTSIDE
    regions = {name: region(name, x) for name, x in sorted(train.items())}
    for k, key in enumerate(OUTSIDE):
        table[key] = {name: packed(found[k]) for name, found in regions.items()}
    TARGET.write_text(json.dumps(table, indent=1) + "\n")
    held_out = [row["path"] for row in rows if row["split"] in ("val", "test")]
    report(regions, torsions_of(held_out, LARGEST_B), torsions_of(held_out, np.inf))


def region(name: str, angles: np.ndarray) -> list[np.ndarray]:
    """Bins of each of `OUTSIDE`, bool, of torsions [n, chi], rad."""
    place = place_of(name, angles)
    n_chi = place.shape[1]
    counts, one = (np.zeros((BINS[n_chi],) * n_chi) for _ in range(2))
    np.add.at(counts, tuple(place.T), 1)
    if (name, n_chi) in SYMMETRIC:
        counts += np.roll(counts, BINS[n_chi] // 2, axis=-1)
    one[(0,) * n_chi] = 1
    around, own = (gaussian_filter(x, SMOOTH[n_chi], mode="wrap") for x in (counts, one))
    others = around[tuple(place.T)] - own.flat[0]
    return [around >= max(np.quantile(others, out), 1e-9) for out in OUTSIDE.values()]


def packed(inside: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.packbits(inside).tobytes(), 9)).decode()


def report(regions: dict, clean: dict, every: dict) -> None:
    columns = (
        "held out",
        "outliers %",
        "not favoured %",
        "any B: outliers %",
        "random: outliers %",
    )
    print("| residue |", " | ".join(columns), "|")
    total = np.zeros(5)
    for name, found in regions.items():
        allowed, favoured = found
        inside = [tuple(place_of(name, x[name]).T) for x in (clean, every)]
        row = np.array([
            len(clean[name]), (~allowed[inside[0]]).sum(), (~favoured[inside[0]]).sum(),
            (~allowed[inside[1]]).mean() * len(clean[name]), (~allowed).mean() * len(clean[name]),
        ])  # fmt: skip
        total += row
        shown(name, row)
    shown("all", total)


def shown(name: str, row: np.ndarray) -> None:
    print(f"| {name} | {row[0]:.0f} |", " | ".join(f"{100 * x / row[0]:.2f}" for x in row[1:]), "|")


def torsions_of(paths: list[Path], largest_b: float) -> dict[str, np.ndarray]:
    """chi1 and on [n, chi], rad, of the residues of each kind that have all atoms."""
    points = defaultdict(list)
    for path in paths:
        for name, atoms in residues(path, largest_b):
            rows = [r for r in RESIDUES[name].placements if r.chi]
            names = [(r.great, r.grandparent, r.parent, r.atom) for r in sorted(rows, key=_chi)]
            if names and all(atom in atoms for row in names for atom in row):
                points[name].append([[atoms[atom] for atom in row] for row in names])
    return {name: dihedral(np.array(x)) for name, x in points.items()}


def _chi(row: Placement) -> int:
    return row.chi


def residues(path: Path, largest_b: float) -> Iterator[tuple[str, dict]]:
    """Name and atoms of each residue of a chain with no larger B factor."""
    found: dict[str, tuple[str, dict]] = {}
    loose = set()
    with gzip.open(path, "rt", errors="replace") as file:
        for line in file:
            if line.startswith("ENDMDL"):
                break
            if line.startswith("ATOM") and line[16] in " A" and line[17:20] in RESIDUES:
                key = line[21:27]
                place = (float(line[30:38]), float(line[38:46]), float(line[46:54]))
                found.setdefault(key, (line[17:20], {}))[1][line[12:16].strip()] = place
                if float(line[60:66] or 0) > largest_b:
                    loose.add(key)
    return (residue for key, residue in found.items() if key not in loose)


def dihedral(points: np.ndarray) -> np.ndarray:
    """Of four points each [..., 4, 3]."""
    first, axis, last = np.moveaxis(np.diff(points, axis=-2), -2, 0)
    left, right = np.cross(first, axis), np.cross(axis, last)
    sine = np.linalg.norm(axis, axis=-1) * (first * right).sum(-1)
    return np.arctan2(sine, (left * right).sum(-1))


if __name__ == "__main__":
    main()
