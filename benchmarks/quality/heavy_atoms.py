"""Heavy atoms from the true C-alpha trace of proteins never trained on: one answer and members.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/heavy_atoms.py [--artifact FOLDER]
        [--beside FOLDER | --alone] [--sets NAME ...]

Prints a Markdown record. Members are prior samples; beside them stands a library of torsions by residue type,
drawn without context, on the same ideal geometry. Without --artifact the stage that comes with the package
is judged. --beside: answers of another stage for the same traces, instead of the library's; --alone: nothing.
"""

import argparse
import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mdtraj
import numpy as np
import torch

from hpcbackmap.evaluation.bootstrap import Totals, summarise
from hpcbackmap.metrics.judge import METRICS, judge, judge_alone
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot.model import Genzprot
from hpcbackmap.stages.genzprot.network import BINS
from hpcbackmap.stages.noise import frame_noise

MEMBERS = 5
BLOCK = 8
"""Frames treated together."""
LIBRARY_CHAINS = 150
PATHS = ("dims_a", "dims_b", "dims_c", "dims_d", "tmd")
ENSEMBLES = {
    "adk": ([f"adenylate_kinase/adk_{path}" for path in PATHS], 32),
    "ped00151": (["ped00151/ped00151"], 60),
    "ubiquitin": (["ubiquitin/2k39_nmr"], 29),
    "p38": (["p38/p38_md"], 20),
}
"""Files and how many of their frames, evenly spaced."""
UNSEEN = {"unseen": ("static_more", "test"), "unseen_2": ("static_3", "test2")}
"""Folder and split of single chains."""
SHOWN = (
    "rmsd_aligned_angstrom", "rmsd_aligned_backbone_angstrom", "rmsd_aligned_side_chain_angstrom",
    "rmsd_aligned_best_angstrom", "lddt", "bond_graph_ged", "clashes_severe_per_100_residues",
    "residues_clashing_severe_percent", "residues_clashing_percent", "clashscore",
    "ramachandran_favoured_percent", "ramachandran_outliers_percent", "rotamers_favoured_percent",
    "rotamer_outliers_percent", "peptide_bonds_off_percent",
    "omega_nonplanar_percent", "chi1_right_percent", "chi12_right_percent", "phi_jsd_nats", "psi_jsd_nats",
    "chi1_jsd_nats", "chi2_jsd_nats", "rotamer_tvd", "rotamer_chi1_tvd", "cb_deviation_angstrom",
    "pierced_rings_per_structure", "d_residues_percent", "diversity", "spread_ratio",
)  # fmt: skip


class Ensemble(NamedTuple):
    name: str
    topology: Topology
    positions: np.ndarray
    """Float32 [F, A, 3], nm."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--artifact", type=Path)
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument("--beside", type=Path)
    beside.add_argument("--alone", action="store_true")
    parser.add_argument("--json", type=Path, help="Write all measures here.")
    parser.add_argument("--sets", nargs="*", default=[*ENSEMBLES, *UNSEEN])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    data = Path(arguments.data)
    keep_freed_memory()
    torch.set_num_threads(1)
    stage = load_artifact(arguments.artifact or shipped_artifact())
    other = arguments.beside and load_artifact(arguments.beside)
    library = None if other or arguments.alone else type_library(stage, data)
    results = {}
    for name in arguments.sets:
        ensembles = (
            read_unseen(data, *UNSEEN[name]) if name in UNSEEN else read_ensemble(data, name)
        )
        results[name] = judge_set(stage, library, ensembles, OWN if library is None else ANSWERS)
        if other:
            found = judge_set(other, None, ensembles, OWN)
            for key in ("rows", "cpu_ms_per_frame"):
                beside = {f"{row}, beside": found[key][row] for row in OWN}
                results[name][key] = beside | results[name][key]
        print(table(name, results[name]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def judge_set(
    stage: Genzprot,
    library: np.ndarray | None,
    ensembles: list[Ensemble],
    answers: dict[str, Callable],
) -> dict:
    """Summary of every row: answers, their CPU seconds a structure, and the truth itself."""
    rows = {name: Totals(METRICS) for name in (*answers, "truth")}
    seconds = dict.fromkeys(answers, 0.0)
    frames = sum(len(ensemble.positions) for ensemble in ensembles)
    number = 0
    for ensemble in ensembles:
        ladder = build_ladder(ensemble.topology, ["fg", "ca"])
        system = collate([stage.describe(ladder)])
        for start in range(0, len(ensemble.positions), BLOCK):
            truth = ensemble.positions[start : start + BLOCK]
            numbers = np.arange(number, number + len(truth))
            coarse = torch.from_numpy(truth[:, ensemble.topology.ca_index])
            blocks = numbers * min(frames, 200) // frames
            for name, answer in answers.items():
                begun = time.process_time()
                generated = answer(stage, library, coarse, system, numbers)
                seconds[name] += time.process_time() - begun
                rows[name].add(judge(ensemble.topology, truth, generated), ensemble.name, blocks)
            rows["truth"].add(judge_alone(ensemble.topology, truth), ensemble.name, blocks)
            number += len(truth)
    blocks = min(frames, 200)
    summary = {name: summarise(totals, blocks, 500, 0) for name, totals in rows.items()}
    cost = {name: 1e3 * value / frames for name, value in seconds.items()}
    return {"frames": frames, "members": MEMBERS, "rows": summary, "cpu_ms_per_frame": cost}


def one_answer(stage, library, coarse, system, numbers) -> np.ndarray:
    return stage.mode(coarse, system).numpy()[:, None]


def members(stage, library, coarse, system, numbers) -> np.ndarray:
    drawn = []
    for member in range(MEMBERS):
        noise = frame_noise(
            0, stage.name, numbers.tolist(), member, coarse.shape[1], stage.noise_width
        )
        drawn.append(stage.sample(coarse, system, torch.from_numpy(noise)).numpy())
    return np.stack(drawn, 1)


def library_mode(stage, library, coarse, system, numbers) -> np.ndarray:
    bins = torch.from_numpy(library.argmax(-1))[system.residue_type]
    return stage.decode(bins.expand(len(coarse), -1, -1), coarse, system).numpy()[:, None]


def library_members(stage, library, coarse, system, numbers) -> np.ndarray:
    drawn = []
    cumulative = library[system.residue_type.numpy()].cumsum(-1)
    for member in range(MEMBERS):
        level = np.random.default_rng([member, int(numbers[0])]).random(
            (len(coarse), *cumulative.shape[:2], 1)
        )
        bins = torch.from_numpy((level > cumulative).sum(-1))
        drawn.append(stage.decode(bins, coarse, system).numpy())
    return np.stack(drawn, 1)


ANSWERS = {
    "one answer": one_answer,
    "members": members,
    "library, most frequent": library_mode,
    "library, drawn": library_members,
}


OWN = {name: ANSWERS[name] for name in ("one answer", "members")}
"""Those of the stage."""


def type_library(stage: Genzprot, data: Path) -> np.ndarray:
    """Share of the bins of every torsion by residue type, [types, torsions, bins]."""
    counts = np.full((20, len(BINS), max(BINS)), 1e-9)
    for path in sorted((data / "static_bm5").glob("*.pdb.gz"))[:LIBRARY_CHAINS]:
        chain = read([path], 1)
        system = collate([stage.describe(build_ladder(chain.topology, ["fg", "ca"]))])
        bins = stage.encode(torch.from_numpy(chain.positions), system)[0].numpy()
        there = system.torsion_mask.numpy()
        kinds = np.broadcast_to(system.residue_type.numpy()[:, None], there.shape)
        roles = np.broadcast_to(np.arange(there.shape[1]), there.shape)
        np.add.at(counts, (kinds[there], roles[there], bins[there]), 1)
    return counts / counts.sum(-1, keepdims=True)


def read_ensemble(data: Path, name: str) -> list[Ensemble]:
    files, frames = ENSEMBLES[name]
    return [read([data / file for file in files], frames)]


def read_unseen(data: Path, folder: str, split: str) -> list[Ensemble]:
    """Chains of families that no training chain belongs to."""
    with (data / folder / "index.csv").open() as handle:
        files = [row["file"] for row in csv.DictReader(handle) if row["split"] == split]
    return [read([data / folder / file], 1) for file in files]


def read(paths: list[Path], frames: int) -> Ensemble:
    """Evenly spaced frames of one molecule from several files: a PDB, or ``_top.pdb`` beside an XTC."""
    parts = []
    for path in paths:
        if path.suffix == ".gz" or path.with_suffix(".pdb.gz").exists():
            full = path if path.suffix == ".gz" else path.with_suffix(".pdb.gz")
            parts.append(mdtraj.load(str(full)))
        else:
            parts.append(mdtraj.load(f"{path}.xtc", top=f"{path}_top.pdb"))
    topology, *_ = topology_from_mdtraj(parts[0].topology, parts[0].xyz[0], paths[0].name)
    positions = []
    for path, part in zip(paths, parts, strict=True):
        other, order, _ = topology_from_mdtraj(part.topology, part.xyz[0], path.name)
        if other.sequence != topology.sequence:
            raise SystemExit(f"{path}: another sequence than {paths[0]}")
        positions.append(part.xyz[:, order])
    joined = np.concatenate(positions)
    chosen = joined[np.unique(np.linspace(0, len(joined) - 1, frames).round().astype(int))]
    return Ensemble(paths[0].name, topology, chosen - chosen.mean(1, keepdims=True))


def table(name: str, result: dict) -> str:
    title = f"{name}: {result['frames']} frames, {result['members']} members"
    lines = measures(title, result["rows"], SHOWN)
    cost = (f"{value:.0f}" for value in result["cpu_ms_per_frame"].values())
    lines.append("| CPU ms a frame (all members) | " + " | ".join(cost) + " | |")
    return "\n".join([*lines, ""])


def measures(title: str, rows: dict[str, dict], shown: tuple[str, ...]) -> list[str]:
    """Markdown of the measures of each row that are ``shown``."""
    lines = [
        f"## {title}",
        "",
        "| | " + " | ".join(rows) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for item in METRICS:
        if item.name in shown:
            cells = (cell(row.get(item.name), item.digits) for row in rows.values())
            lines.append(f"| {item.label} | " + " | ".join(cells) + " |")
    return lines


def cell(summary: dict | None, digits: int) -> str:
    if summary is None or summary["value"] is None:
        return "–"
    text = f"{summary['value']:.{digits}f}"
    if summary["interval_95"]:
        text += " [{:.{d}f}, {:.{d}f}]".format(*summary["interval_95"], d=digits)
    return text


if __name__ == "__main__":
    main()
