"""Fit the regressions that tell cis links before prolines from beads: a minute or two on one core.

    HPCBACKMAP_DATA=FOLDER python benchmarks/recipes/cis_prolines.py [--output FOLDER]

Chains of the train split of static_more, all that have a cis proline and a third of the others; beads as they
are and displaced as in a simulation, half each. Log odds are shifted to a share of 5 % of cis before proline.
Prints a Markdown record of the splits val and test, which are not fitted to. Without --output nothing is saved.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from calpha import KINDS, chains, coarse, joined, shares_of
from header import header

from hpcbackmap.protein.residues import RESIDUE_INDEX
from hpcbackmap.protein.torsions import dihedrals
from hpcbackmap.stages.calpha.cis_prolines import PARTS, distances_around, prolines_within
from hpcbackmap.stages.calpha.closing import ODDS, cis_links
from hpcbackmap.stages.calpha.trace import PREDICTED_SPREAD, _network
from hpcbackmap.stages.sealed import seal

NOISES = (0.0, 0.0127, 0.02)
"""nm per axis: beads as they are, bonds that fluctuate by 0.18 Å, and by 0.28."""
FITTED = 2
"""Of these noises."""
OTHERS = 0.35
"""Share of the training chains without a cis proline that are taken."""
PENALTY = 3.0
STEPS = 40
N, CA, C = 0, 1, 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(arguments.data) / "static_more"
    seen = {split: collect(folder, split) for split in ("train", "val", "test")}
    fitted = {kind: fit(*seen["train"][kind]) for kind in KINDS}
    if arguments.output:
        save(fitted, arguments.output)
    print("\n".join(header("Cis prolines from beads")))
    print(
        "| from | noise, Å | val: found / cis, too many | test: found / cis, too many | test, by the link |"
    )
    print("|---|---|---|---|---|")
    for kind in KINDS:
        for number, noise in enumerate(NOISES):
            cells = [told(fitted[kind], *seen[split][kind], number) for split in ("val", "test")]
            before = called(seen["test"][kind][2][number], seen["test"][kind][1])
            print(f"| {kind} | {10 * noise:.2f} | {' | '.join([*cells, before])} |")
    prolines = {split: len(seen[split]["com"][1]) for split in seen}
    print(f"\nProlines: {prolines}")


def collect(folder: Path, split: str) -> dict:
    """Of each kind: distances [noises, prolines, pairs], which are cis, and which the link alone calls so."""
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(0)
    found = {kind: ([], [], []) for kind in KINDS}
    for chain in chains(folder, split):
        atoms, types, bonded = joined([chain])
        proline = types == RESIDUE_INDEX["PRO"]
        chosen = prolines_within(bonded, proline)
        cis = cis_before(atoms, chosen)
        if not len(chosen) or (split == "train" and not cis.any() and rng.random() > OTHERS):
            continue
        for kind, masses in KINDS.items():
            exact = coarse(atoms, types, [shares_of(table) for table in masses])
            noise = torch.randn((len(NOISES), *exact.shape), generator=generator)
            beads = exact + torch.tensor(NOISES)[:, None, None, None] * noise
            with torch.no_grad():
                calpha = _network(kind.replace("+", "_"))(beads, types, bonded)[-1]
            spread = torch.full((len(NOISES),), PREDICTED_SPREAD)
            alone = cis_links(calpha, bonded, proline, spread)[:, chosen]
            for column, value in zip(
                found[kind], (distances_around(beads, calpha, chosen), cis, alone), strict=True
            ):
                column.append(value)
    return {
        kind: (torch.cat(a, 1).double(), torch.cat(b), torch.cat(c, 1))
        for kind, (a, b, c) in found.items()
    }


def cis_before(atoms: torch.Tensor, residues: torch.Tensor) -> torch.Tensor:
    """Whether the link before each of ``residues`` is cis; atoms [R, MAX_ATOMS, 3]."""
    places = atoms.flatten(0, 1)[None].numpy().astype(np.float64)
    here, before = atoms.shape[1] * residues, atoms.shape[1] * (residues - 1)
    omega = dihedrals(
        places, torch.stack([before + CA, before + C, here + N, here + CA], 1).numpy()
    )
    return torch.from_numpy(np.abs(omega[0]) < np.pi / 2)


def fit(distances: torch.Tensor, cis: torch.Tensor, _: torch.Tensor) -> dict[str, torch.Tensor]:
    """Penalised logistic regression by Newton's method."""
    rows = distances[:FITTED].flatten(0, 1)
    truth = cis.repeat(FITTED).double()
    mean, scale = rows.mean(0), rows.std(0)
    design = torch.cat([torch.ones(len(rows), 1), (rows - mean) / scale], 1).double()
    penalty = PENALTY * torch.eye(design.shape[1]).double()
    penalty[0, 0] = 0
    found = torch.zeros(design.shape[1]).double()
    for _ in range(STEPS):
        odds = torch.sigmoid(design @ found)
        curvature = (design * ((odds * (1 - odds) + 1e-6) / FITTED)[:, None]).T @ design + penalty
        slope = design.T @ ((truth - odds) / FITTED) - penalty @ found
        found = found + torch.linalg.solve(curvature, slope)
    share = truth.mean()
    shift = np.log(ODDS[True] / (1 - ODDS[True])) - float((share / (1 - share)).log())
    parts = (mean, scale, found[1:], found[0] + shift)
    return {name: part.float() for name, part in zip(PARTS, parts, strict=True)}


def told(fitted: dict, distances: torch.Tensor, cis: torch.Tensor, _, number: int) -> str:
    seen = (distances[number].float() - fitted["mean"]) / fitted["scale"]
    return called(seen @ fitted["weight"] + fitted["bias"] > 0, cis)


def called(found: torch.Tensor, cis: torch.Tensor) -> str:
    return f"{int((found & cis).sum())} / {int(cis.sum())}, {int((found & ~cis).sum())}"


def save(fitted: dict, output: Path) -> None:
    from safetensors.torch import save_file

    output.mkdir(parents=True, exist_ok=True)
    weights = {
        f"{kind.replace('+', '_')}.{name}": tensor
        for kind, parts in fitted.items()
        for name, tensor in parts.items()
    }
    metadata = {"data": "static_more, split train (PDB entries, CC0)", "penalty": str(PENALTY)}
    save_file(weights, output / "cis-prolines.safetensors", seal(weights, metadata))


if __name__ == "__main__":
    main()
