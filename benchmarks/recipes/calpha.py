"""Train the shipped steps from one or two beads per residue to C-alpha, on one core in minutes each.

    HPCBACKMAP_DATA=FOLDER python benchmarks/recipes/calpha.py KIND [--steps N] [--output FOLDER]

KIND: com (centre of mass of the residue), bb (of N, CA, C, O), sc (of the side chain; CA of glycine), bb+sc
(the last two together), martini2 (the same, CB of alanine in its backbone bead). Chains of the train split
of static_more, clusters drawn first; every second chain with beads displaced as far as those of a simulation
are. The validation split chooses the best weights.
"""

import argparse
import csv
import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUE_INDEX, RESIDUES
from hpcbackmap.resolution.representations.bead_tables import (
    backbone_masses,
    martini2_backbone_masses,
    residue_masses,
    side_chain_masses,
)
from hpcbackmap.stages.calpha.network import CalphaNetwork
from hpcbackmap.stages.sealed import read_sealed, seal


def _martini3_side_masses(residue: str) -> np.ndarray:
    """Glycine has no side-chain bead: its backbone bead stands for it."""
    return (backbone_masses if residue == "GLY" else side_chain_masses)(residue)


def _martini2_side_masses(residue: str) -> np.ndarray:
    """Nor has alanine."""
    bare = residue in ("GLY", "ALA")
    return (martini2_backbone_masses if bare else side_chain_masses)(residue)


KINDS = {
    "com": (residue_masses,),
    "bb": (backbone_masses,),
    "sc": (side_chain_masses,),
    "bb+sc": (backbone_masses, _martini3_side_masses),
    "martini2": (martini2_backbone_masses, _martini2_side_masses),
}
ACADEMIC = "Acellera/moleculekit"
"""Repository with an academic licence: its chains are left out of what is shipped."""
NOISE = 0.02
"""Largest displacement of the beads, nm per axis, in every second training chain."""
RESIDUES_A_STEP = 3000
RATE = 3e-3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--start", type=Path, help="Weights to go on from, at a third of the rate.")
    parser.add_argument("--output", type=Path, default=Path("."))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train = chains(Path(arguments.data) / "static_more", "train")
    valid = chains(Path(arguments.data) / "static_more", "val")
    tables = [shares_of(table) for table in KINDS[arguments.kind]]
    network = CalphaNetwork(len(tables))
    rate = RATE
    if arguments.start:
        weights, _ = read_sealed(arguments.start)
        network.load_state_dict({key: value.float() for key, value in weights.items()})
        rate = RATE / 3
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, arguments.steps, pct_start=0.05)
    clusters: dict[str, list] = {}
    for chain in train:
        clusters.setdefault(chain["cluster"], []).append(chain)
    names = sorted(clusters)
    best, began = np.inf, time.monotonic()
    for step in range(arguments.steps):
        batch, size = [], 0
        while size < RESIDUES_A_STEP:
            members = clusters[names[rng.integers(len(names))]]
            batch.append(members[rng.integers(len(members))])
            size += len(batch[-1]["types"])
        atoms, types, bonded = joined(batch)
        beads = coarse(atoms, types, tables)
        level = np.repeat(
            [rng.uniform(0, NOISE) * rng.integers(2) for _ in batch],
            [len(c["types"]) for c in batch],
        )
        beads = beads + torch.randn_like(beads) * torch.from_numpy(level)[:, None, None].to(beads)
        truth = atoms[:, 1]
        first, last = network(beads[None], types, bonded)
        loss = length(last[0] - truth).mean() + 0.3 * length(first[0] - truth).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            error = {noise: rms(network, valid, tables, noise) for noise in (0.0, 0.0127)}
            print(
                f"{step + 1} {time.monotonic() - began:.0f} s loss {loss:.4f} "
                + " ".join(f"val({noise}) {value:.3f}" for noise, value in error.items()),
                flush=True,
            )
            if sum(error.values()) < best:
                best = sum(error.values())
                save(network, arguments, error, step + 1)


def save(network, arguments, error: dict, step: int) -> None:
    from safetensors.torch import save_file

    name = arguments.kind.replace("+", "_")
    arguments.output.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half() for key, value in network.state_dict().items()}
    metadata = seal(
        weights,
        {
            "shape": json.dumps({"sites": network.sites, "width": network.width}),
            "beads": arguments.kind,
            "data": "static_more, split train (PDB entries, CC0)",
            "step": str(step),
            "validation_rms_angstrom": json.dumps({str(k): round(v, 4) for k, v in error.items()}),
        },
    )
    save_file(weights, arguments.output / f"{name}-ca.safetensors", metadata)


def chains(folder: Path, split: str) -> list[dict]:
    found = []
    with (folder / "index.csv").open() as handle:
        for row in csv.DictReader(handle):
            if row["split"] == split and row["repo"] != ACADEMIC:
                atoms, types = read(folder / row["file"])
                found.append({"atoms": atoms, "types": types, "cluster": row["cluster"]})
    return found


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Dense atoms [R, MAX_ATOMS, 3] in nm (NaN where there is none) and residue types [R] of one chain."""
    names, rows, last = [], [], None
    with gzip.open(path, "rt") as handle:
        for line in handle:
            if line.startswith("ENDMDL"):
                break
            if not line.startswith("ATOM"):
                continue
            if line[21:27] != last:
                last = line[21:27]
                names.append(line[17:20])
                rows.append(np.full((MAX_ATOMS, 3), np.nan, dtype=np.float32))
            order = RESIDUES[names[-1]].atoms
            name = line[12:16].strip()
            if name in order:
                place = [float(line[k : k + 8]) / 10 for k in (30, 38, 46)]
                rows[-1][order.index(name)] = place
    return np.stack(rows), np.array([RESIDUE_INDEX[name] for name in names])


def shares_of(table) -> torch.Tensor:
    masses = np.stack([table(name) for name in RESIDUES])
    return torch.from_numpy(masses / masses.sum(-1, keepdims=True))


def joined(batch: list[dict]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    atoms = torch.from_numpy(np.concatenate([chain["atoms"] for chain in batch])).nan_to_num()
    types = torch.from_numpy(np.concatenate([chain["types"] for chain in batch]))
    bonded = torch.cat([torch.arange(len(chain["types"])) > 0 for chain in batch])
    return atoms, types, bonded


def coarse(atoms: torch.Tensor, types: torch.Tensor, tables: list[torch.Tensor]) -> torch.Tensor:
    """Beads [R, sites, 3] of dense atoms."""
    return torch.stack([torch.einsum("ra,rax->rx", table[types], atoms) for table in tables], 1)


def length(gap: torch.Tensor) -> torch.Tensor:
    return (gap.square().sum(-1) + 1e-8).sqrt()


@torch.no_grad()
def rms(network, data: list[dict], tables, noise: float) -> float:
    """Root mean square error of the C-alpha atoms, Angstrom."""
    generator = torch.Generator().manual_seed(0)
    atoms, types, bonded = joined(data)
    beads = coarse(atoms, types, tables)
    beads = beads + noise * torch.randn(beads.shape, generator=generator)
    found = network(beads[None], types, bonded)[-1][0]
    return 10 * float((found - atoms[:, 1]).square().sum(-1).mean().sqrt())


if __name__ == "__main__":
    main()
