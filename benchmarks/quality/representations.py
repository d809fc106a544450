"""Heavy atoms from beads of every representation, coarse-grained from proteins never trained on.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/representations.py [--split val] [--limit N] [--kinds ...]

Prints a Markdown record. Beads are computed from the chains of the test split of static_more, once as they
are and once displaced as in a simulation, so that bonds fluctuate by 0.18 Angstrom. One answer is the mode,
members are prior samples. Beside them: beads taken for C-alpha atoms; the mean displacement of each residue
type in the frame of its neighbours (the nearest rule to write down); side-chain beads not used.
"""

import argparse
import csv
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import mdtraj
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from header import header

from hpcbackmap.metrics.peptide import link_lengths
from hpcbackmap.metrics.rmsd import rmsd, superpose
from hpcbackmap.metrics.rotamers import chi_right
from hpcbackmap.protein.chirality import chiral_volumes
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.residues import BACKBONE, RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import omega_angles
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.representations.coarsen import coarse_grained
from hpcbackmap.resolution.representations.detect import detect, read_as
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.calpha.trace import calpha_trace
from hpcbackmap.stages.given import given_of
from hpcbackmap.stages.layers.geometry import local_frames
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.trajectories.particles import ChainRow, Particles, ResidueRow

KINDS = (
    "ca", "com", "bb", "bb+sc", "martini2", "martini3", "ca+sc", "ca+com", "sc", "backbone",
)  # fmt: skip
BOND_NOISE = 0.018
"""nm; standard deviation of bonds in a simulation of beads."""
MEMBERS = 1
RULE_CHAINS = 150
"""Training chains that the nearest rule is made of."""
TARGETS = {
    "ca": ("0", "1.30 now", "78 now"),
    "com": ("≤ .33", "≤ 1.15", "≥ 84"),
    "bb": ("≤ .25", "≤ 1.40", "≥ 75"),
    "martini2": ("≤ .25", "≤ .95", "≥ 90"),
    "martini3": ("≤ .25", "≤ .95", "≥ 90"),
    "ca+sc": ("0", "≤ .95", "≥ 90"),
    "backbone": ("0", "≤ 1.15", "≥ 83"),
}
"""C-alpha error and heavy-atom RMSD of one answer (Angstrom), chi 1 within 40 degrees (%), of clean beads."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="Only so many chains.")
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--clean", action="store_true", help="Leave the displaced beads out.")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    keep_freed_memory()
    torch.set_num_threads(1)
    folder = Path(arguments.data) / "static_more"
    stage = load_artifact(arguments.artifact or shipped_artifact("ca-fg"))
    chains = list(read_chains(folder, arguments.split, arguments.limit))
    rules = {kind: nearest_rule(folder, kind) for kind in ("com", "bb") if kind in arguments.kinds}
    tables = {}
    for noise in (0.0,) if arguments.clean else (0.0, BOND_NOISE):
        rows = defaultdict(Row)
        for number, (topology, truth) in enumerate(chains):
            for kind in arguments.kinds:
                judge_chain(rows, kind, noise, stage, topology, truth, number, rules)
        tables[noise] = dict(rows)
    print("\n".join(report(tables, len(chains), arguments)))


class Row:
    """Sums over chains of one way to heavy atoms."""

    def __init__(self):
        self.values = defaultdict(list)
        self.seconds = 0.0

    def add(self, topology: Topology, truth: np.ndarray, answers: np.ndarray) -> None:
        """truth [A, 3], answers [M, A, 3]."""
        beside = np.repeat(truth[None], len(answers), axis=0)
        values = self.values
        gap = answers[:, topology.ca_index] - beside[:, topology.ca_index]
        values["square"].append(np.square(gap).sum(-1).mean(0))
        aligned = superpose(answers, beside)
        values["rmsd"].append(10 * rmsd(aligned, beside).mean())
        backbone = np.isin(topology.atom_names, BACKBONE)
        values["backbone"].append(10 * rmsd(aligned[:, backbone], beside[:, backbone]).mean())
        values["chi1"].append(100 * np.nanmean(chi_right(topology, answers, beside)["chi1"]))
        omega, true_omega = (omega_angles(topology, x) for x in (answers, beside))
        cis = (np.abs(omega) < np.pi / 2) & (np.abs(true_omega) >= np.pi / 2)
        members = len(answers)
        values["D"].append((chiral_volumes(topology, answers) < 0).sum() / members)
        values["cis"].append(cis.sum() / members)
        broken = (link_lengths(topology, answers) < 0.12) | (link_lengths(topology, answers) > 0.15)
        values["broken"].append(broken.sum() / members)

    def cells(self) -> list[str]:
        values = self.values
        error = 10 * np.sqrt(np.concatenate(values["square"]).mean())
        means = [np.nanmean(values[key]) for key in ("rmsd", "backbone")]
        counts = [np.sum(values[key]) for key in ("D", "cis", "broken")]
        return [
            f"{error:.2f}", *(f"{x:.2f}" for x in means), f"{np.nanmean(values['chi1']):.1f}",
            *(f"{x:.3g}" for x in counts), f"{1e3 * self.seconds / len(values['rmsd']):.0f}",
        ]  # fmt: skip


def judge_chain(rows, kind, noise, stage, topology, truth, number, rules) -> None:
    names, residue, positions = coarse_grained(kind, topology, truth[None])
    rng = np.random.default_rng([number, KINDS.index(kind)])
    positions = positions + rng.normal(0, noise / 2**0.5, positions.shape)
    particles = as_particles(topology, names, residue, positions[0].astype(np.float32))
    try:
        found = detect(particles).representation
    except Exception as error:
        found = type(error).__name__
    rows[kind, "detected"].values[found].append(1)
    reading = read_as(kind, particles)
    frames = particles.positions[None]
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    begun = time.process_time()
    coarse, given = calpha_trace(reading, frames).calpha, given_of(reading, frames)
    shared = time.process_time() - begun

    def answer(label, calpha, given, members=False):
        begun = time.process_time()
        calpha = torch.from_numpy(calpha.astype(np.float32))
        if members:
            noises = [
                torch.from_numpy(
                    frame_noise(0, stage.name, [number], m, calpha.shape[1], stage.noise_width)
                )
                for m in range(MEMBERS)
            ]
            made = stage.samples(calpha, system, noises, given)
        else:
            made = [stage.mode(calpha, system, given)]
        rows[kind, label].seconds += (time.process_time() - begun) / len(made) + shared
        rows[kind, label].add(topology, truth, torch.cat(made).numpy())

    answer("one answer", coarse, given)
    answer("members", coarse, given, members=True)
    if noise:
        return
    if kind in rules:
        site = frames[:, reading.sites[kind]]
        answer("beads taken for Cα", site, None)
        answer("nearest rule", by_rule(rules[kind], site, topology), None)
    if reading.beads is not None:
        answer("side-chain beads not used", coarse, None)


def as_particles(topology: Topology, names, residue, positions) -> Particles:
    residues = [ResidueRow(name, i + 1, "", 0) for i, name in enumerate(topology.sequence)]
    return Particles(
        source="beads", names=names, residue=residue, residues=residues,
        chains=[ChainRow("A", "")], elements=[""] * len(names),
        steps=np.full(len(residues), np.nan), positions=positions,
    )  # fmt: skip


def nearest_rule(folder: Path, kind: str) -> np.ndarray:
    """Mean displacement of C-alpha from the bead of each residue type in its local frame, nm [types, 3]."""
    sums, counts = np.zeros((len(RESIDUES), 3)), np.zeros(len(RESIDUES))
    for topology, truth in read_chains(folder, "train", RULE_CHAINS):
        _, _, beads = coarse_grained(kind, topology, truth[None])
        gap = truth[topology.ca_index] - beads[0]
        local = np.einsum("rij,rj->ri", frames_of(beads), gap)
        types = types_of(topology)
        np.add.at(sums, types, local)
        np.add.at(counts, types, 1)
    return sums / counts[:, None]


def by_rule(rule: np.ndarray, beads: np.ndarray, topology: Topology) -> np.ndarray:
    return beads + np.einsum("rij,ri->rj", frames_of(beads), rule[types_of(topology)])


def types_of(topology: Topology) -> list[int]:
    order = list(RESIDUES)
    return [order.index(name) for name in topology.sequence]


def frames_of(beads: np.ndarray) -> np.ndarray:
    n = beads.shape[1]
    before, after = np.arange(n) - 1, np.arange(n) + 1
    before[0], after[-1] = 2, n - 3
    return local_frames(torch.from_numpy(beads), torch.from_numpy(before), torch.from_numpy(after))[
        0
    ].numpy()


def read_chains(folder: Path, split: str, limit: int | None):
    with (folder / "index.csv").open() as handle:
        files = [row["file"] for row in csv.DictReader(handle) if row["split"] == split]
    if limit and limit < len(files):
        files = [files[i] for i in np.linspace(0, len(files) - 1, limit).astype(int)]
    for file in files:
        frames = mdtraj.load(str(folder / file))
        topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], file)
        truth = frames.xyz[0, index]
        yield topology, truth - truth.mean(0)


def report(tables: dict, chains: int, arguments) -> list[str]:
    lines = [
        *header("Heavy atoms from every representation"),
        f"{chains} chains of the {arguments.split} split of static_more, one structure each, {MEMBERS} "
        "member. Cα error: root mean square over residues, before superposition; RMSD: mean over chains, "
        "heavy atoms, superposed; χ1 within 40°; D: residues; cis: links that are trans in truth; broken: "
        "C–N outside 1.2 to 1.5 Å; counts over all chains of one answer or member; CPU-ms: a structure, on "
        "one core. Targets are those of one answer from clean beads.",
        "",
    ]
    for noise, rows in tables.items():
        name = f"bonds ± {10 * noise:.2f} Å" if noise else "beads as they are"
        lines += [
            f"## {name[0].upper()}{name[1:]}",
            "",
            "| from | way | Cα error, Å | RMSD, Å | backbone, Å | χ1, % | D | cis | broken | CPU-ms | target |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for (kind, label), row in rows.items():
            if label != "detected":
                goal = (
                    ", ".join(TARGETS.get(kind, ())) if label == "one answer" and not noise else ""
                )
                lines.append("| " + " | ".join([f"`{kind}`", label, *row.cells(), goal]) + " |")
        lines += ["", "Detected as: " + "; ".join(detected(rows)) + ".", ""]
    return lines


def detected(rows) -> list[str]:
    return [
        f"`{kind}` " + ", ".join(f"{name} {len(n)}" for name, n in row.values.items())
        for (kind, label), row in rows.items()
        if label == "detected"
    ]


if __name__ == "__main__":
    main()
