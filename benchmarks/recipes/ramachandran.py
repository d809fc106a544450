"""Makes hpcbackmap/protein/ramachandran.json: where phi and psi of crystals are.

python benchmarks/recipes/ramachandran.py DATA     DATA: folder with static_3 and static_more (PDB chains, gzip)

5-degree bins of the residues of all chains, smoothed by 7.5 degrees; of each kind of residue the densest bins
that hold 99 % of them (allowed) and 96 % (favoured; as many of the residues of crystals of all qualities lie
in the favoured regions of MolProbity, which were drawn from the best ones).
"""

import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

BINS, SMOOTH = 72, 1.5
HELD = {"allowed": 0.99, "favoured": 0.96}
TARGET = Path(__file__).parents[2] / "hpcbackmap" / "protein" / "ramachandran.json"


def main() -> None:
    angles = defaultdict(list)
    files = sorted(
        path
        for name in ("static_3", "static_more")
        for path in Path(sys.argv[1], name).rglob("*.pdb.gz")
    )
    for path in files:
        for kind, phi, psi in torsions(residues(path)):
            angles[kind].append((phi, psi))
    table = {"chains": len(files), "residues": {k: len(v) for k, v in sorted(angles.items())}}
    table["held"] = HELD
    for name, held in HELD.items():
        table[name] = {kind: region(np.array(rows), held) for kind, rows in sorted(angles.items())}
    TARGET.write_text(json.dumps(table, indent=1) + "\n")


def region(rows: np.ndarray, held: float) -> str:
    """The densest bins [phi, psi] that hold this share of the residues, as hexadecimal text."""
    place = np.floor((rows + 180) / 360 * BINS).astype(int) % BINS
    counts = np.zeros((BINS, BINS))
    np.add.at(counts, tuple(place.T), 1)
    density = gaussian_filter(counts, SMOOTH, mode="wrap")
    order = np.argsort(-density, axis=None)
    inside = np.cumsum(counts.flat[order]) <= held * len(rows)
    allowed = np.zeros(BINS * BINS, dtype=bool)
    allowed[order[: inside.sum() + 1]] = True
    return np.packbits(allowed).tobytes().hex()


def residues(path: Path) -> list[dict]:
    found, last = [], None
    with gzip.open(path, "rt", errors="replace") as file:
        for line in file:
            if line.startswith("ENDMDL"):
                break
            name = line[12:16].strip()
            if not line.startswith("ATOM") or line[16] not in " A" or name not in ("N", "CA", "C"):
                continue
            if line[21:27] != last:
                found.append({"name": line[17:20]})
                last = line[21:27]
            found[-1][name] = np.array([float(line[k : k + 8]) for k in (30, 38, 46)])
    return [residue for residue in found if {"N", "CA", "C"} <= set(residue)]


def torsions(chain: list[dict]):
    for before, here, after in zip(chain, chain[1:], chain[2:], strict=False):
        ends = ((before["C"], here["N"]), (here["C"], after["N"]))
        if max(np.linalg.norm(a - b) for a, b in ends) > 1.6:
            continue
        kind = {"GLY": "glycine", "PRO": "proline"}.get(here["name"])
        kind = kind or ("before proline" if after["name"] == "PRO" else "general")
        phi = dihedral(before["C"], here["N"], here["CA"], here["C"])
        yield kind, phi, dihedral(here["N"], here["CA"], here["C"], after["N"])


def dihedral(a, b, c, d) -> float:
    first, axis, last = b - a, c - b, d - c
    left, right = np.cross(first, axis), np.cross(axis, last)
    return float(np.degrees(np.arctan2(np.linalg.norm(axis) * (first @ right), left @ right)))


if __name__ == "__main__":
    main()
