"""Structures before and after `--relax`: errors, contacts, distributions, and what it costs.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/relax.py [--sets ped00151 adk unseen] [--limit N]

One member of each frame, with hydrogens of our own, minimised as the command does it; judged against the true
structures. Prints a Markdown record.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import heavy_atoms
import numpy as np
import torch

from hpcbackmap.evaluation.bootstrap import Totals, summarise
from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.protonation import protonation_states
from hpcbackmap.finishing.relax import relax
from hpcbackmap.metrics.clashes import clashing_pairs
from hpcbackmap.metrics.close_pairs import close_atoms, pairs_within_two_bonds
from hpcbackmap.metrics.judge import METRICS, judge
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.noise import frame_noise

sys.path.insert(0, str(Path(__file__).parents[1]))
from header import PACKAGES, header

SHOWN = (
    "rmsd_aligned_angstrom", "rmsd_aligned_backbone_angstrom", "rmsd_aligned_side_chain_angstrom",
    "clashes_severe_per_100_residues", "residues_clashing_percent", "bond_graph_ged",
    "omega_nonplanar_percent", "d_residues_percent", "phi_jsd_nats", "psi_jsd_nats", "chi1_jsd_nats",
    "chi2_jsd_nats", "cb_deviation_angstrom",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--sets", nargs="*", default=["ped00151", "adk", "unseen"])
    parser.add_argument("--limit", type=int, help="Frames or chains of each set.")
    parser.add_argument("--most", type=int, default=10_000, help="Residues of a chain at most.")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    torch.set_num_threads(1)
    stage = load_artifact(shipped_artifact())
    print(*header("Before and after --relax", (*PACKAGES, "openmm")), sep="\n")
    for name in arguments.sets:
        ensembles = read(Path(arguments.data), name, arguments.limit, arguments.most)
        print(table(name, stage, ensembles), flush=True)


def read(data: Path, name: str, limit: int | None, most: int) -> list[heavy_atoms.Ensemble]:
    if name in heavy_atoms.ENSEMBLES:
        files, frames = heavy_atoms.ENSEMBLES[name]
        return [heavy_atoms.read([data / file for file in files], min(limit or frames, frames))]
    chains = heavy_atoms.read_unseen(data, *heavy_atoms.UNSEEN[name])
    chains = [chain for chain in chains if chain.topology.n_residues <= most]
    chosen = np.unique(np.linspace(0, len(chains) - 1, limit or len(chains)).astype(int))
    return [chains[k] for k in chosen]


def table(name: str, stage, ensembles: list[heavy_atoms.Ensemble]) -> str:
    totals = {when: Totals(METRICS) for when in ("before", "after")}
    spent, residues, energies, kept, number = 0.0, 0, [], [], 0
    close: dict[str, list[float]] = {"before": [], "after": []}
    frames = sum(len(ensemble.positions) for ensemble in ensembles)
    for ensemble in ensembles:
        truth, topology = ensemble.positions, ensemble.topology
        numbers = np.arange(number, number + len(truth))
        made = drawn(stage, ensemble, numbers)
        states = protonation_states(topology, made, 7.0)
        topology = replace(topology, protonation=states)
        light = add_hydrogens(topology, made)
        relax(topology, made[:0], light[:0])  # the force field is built once for a molecule
        begun = time.process_time()
        done = relax(topology, made, light)
        spent += time.process_time() - begun
        residues += topology.n_residues * len(truth)
        energies.append(done.energies / topology.n_residues)
        kept += [f"{ensemble.name} {frame}: {why}" for frame, why in done.kept.items()]
        for when, structures in (("before", made), ("after", done.heavy)):
            judged = judge(ensemble.topology, truth, structures[:, None])
            totals[when].add(judged, ensemble.name, numbers * min(frames, 200) // frames)
            close[when].append(pairs_below(ensemble.topology, structures, 0.2))
        number += len(truth)
    rows = {when: summarise(each, min(frames, 200), 200, 0) for when, each in totals.items()}
    lines = [f"## {name}: {frames} structures", "", "| | before | after |", "|---|---|---|"]
    for item in METRICS:
        if item.name in SHOWN:
            cells = [heavy_atoms.cell(row.get(item.name), item.digits) for row in rows.values()]
            lines.append(f"| {item.label} | " + " | ".join(cells) + " |")
    per_hundred = [f"{100 * np.sum(values) / residues:.2f}" for values in close.values()]
    lines.append(
        "| Heavy pairs < 2.0 Å, not bonded, per 100 residues | " + " | ".join(per_hundred) + " |"
    )
    median = np.nanmedian(np.concatenate(energies), axis=0)
    lines.append(
        "| Energy, median (kJ/mol/residue) | " + " | ".join(f"{e:.0f}" for e in median) + " |"
    )
    cost = f"{spent / frames:.2f} CPU-s a structure of {residues / frames:.0f} residues on average"
    failed = f"{len(kept)} of {frames} could not be relaxed" + "".join(f"; {it}" for it in kept)
    return "\n".join([*lines, "", f"{cost}; {failed}.", ""])


def drawn(stage, ensemble: heavy_atoms.Ensemble, numbers: np.ndarray) -> np.ndarray:
    """A member of every frame [F, A, 3]."""
    system = collate([stage.describe(build_ladder(ensemble.topology, ["fg", "ca"]))])
    coarse = torch.from_numpy(ensemble.positions[:, ensemble.topology.ca_index])
    shape = (coarse.shape[1], stage.noise_width)
    noise = frame_noise(0, stage.name, numbers.tolist(), 0, *shape)
    return stage.sample(coarse, system, torch.from_numpy(noise)).numpy()


def pairs_below(topology, structures: np.ndarray, reach: float) -> int:
    """Pairs of heavy atoms nearer than ``reach`` (nm) and more than two bonds apart, in all structures."""
    near = pairs_within_two_bonds(topology)
    return sum(
        len(clashing_pairs(topology, close_atoms(frame, reach), near, reach))
        for frame in structures
    )


if __name__ == "__main__":
    main()
