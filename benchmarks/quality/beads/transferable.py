"""Beads of n residues to C-alpha for proteins never seen: the trace stage against spline and fragments.

    export HPCBACKMAP_DATA=...
    python benchmarks/quality/beads/transferable.py ARTIFACT OUT.json [--residues 4] [--limit 96]

Rows per chain of the test split of static_more, 3 members of each; baselines get the same closing projection
as the stage. Prints means with 95 % bootstrap intervals over chains, and of the paired differences.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import mdtraj
import numpy as np
import torch
from ensembles import data_folder
from fragments import Library
from trace_metrics import figures

from hpcbackmap.protein.topology import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.layers.bead_system import bead_system
from hpcbackmap.stages.layers.close_trace import LIMIT, close_calpha
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.trace.spline import spline_weights

MEMBERS = 3
HELIX = (0.44, 0.60)
"""Distance over three residues in a helix, nm."""


def chains(split: str, limit: int | None = None):
    """(name, ladder maker's topology, C-alpha trace float64 [N, 3]) of static_more chains of a split."""
    folder = data_folder() / "static_more"
    with (folder / "index.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == split]
    rows = [row for row in rows if "moleculekit" not in row["repo"]]
    for row in rows[:limit]:
        frame = mdtraj.load(str(folder / row["file"]))
        topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], row["file"])
        trace = frame.xyz[0, index][topology.ca_index].astype(np.float64)
        yield Path(row["file"]).name.split(".")[0], topology, trace - trace.mean(0)


def helices(trace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which residues start a right-handed and a left-handed helical turn, both [N - 3]."""
    step = np.diff(trace, axis=0)
    volume = (np.cross(step[:-2], step[1:-1]) * step[2:]).sum(-1) / 0.38**3
    across = np.linalg.norm(trace[3:] - trace[:-3], axis=-1)
    turn = (across > HELIX[0]) & (across < HELIX[1])
    return turn & (volume > 0.3), turn & (volume < -0.3)


def row_of(members: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Figures of members [M, N, 3] of one chain, with helical turns recovered and wrong-handed, in percent."""
    cis = np.linalg.norm(np.diff(truth, axis=0), axis=-1) < LIMIT
    row = figures(members[:, None], truth[None], cis)
    right, left = helices(truth)
    made = [helices(member) for member in members]
    row["turns"] = int(right.sum())
    row["turns_found"] = float(np.mean([(right & found).sum() for found, _ in made]))
    row["left_turns"] = float(np.mean([(wrong & ~left).sum() for _, wrong in made]))
    return row


@torch.no_grad()
def rows_of_chain(stage, library: Library, topology, trace: np.ndarray, residues: int) -> dict:
    ladder = build_ladder(topology, ["fg", "ca", f"ucg:/{residues}"])
    mapping = ladder.mapping(f"ucgr{residues}")
    beads = mapping.apply(trace)
    system = collate([bead_system(ladder, "ca", f"ucgr{residues}")])

    def closed(positions):
        positions = positions + (beads - mapping.apply(positions))[mapping.bead]
        trans = torch.zeros(len(system.bond_index), dtype=torch.bool)
        return close_calpha(torch.from_numpy(positions)[None].float(), system, trans).numpy()

    index, weight = spline_weights(mapping, np.array(topology.chain_index))
    spline = (weight[..., None] * beads[index]).sum(1)
    coarse = torch.from_numpy(beads)[None].float()
    noise = np.concatenate([
        frame_noise(0, "benchmark", [0], member, len(beads), stage.noise_width) for member in range(MEMBERS)
    ])  # fmt: skip
    began = time.process_time()
    members = stage.sample(coarse.expand(MEMBERS, -1, -1), system, torch.from_numpy(noise)).numpy()
    seconds = (time.process_time() - began) / MEMBERS
    found = {
        "spline": spline[None],
        "spline, closed": closed(spline),
        "fragments, closed": closed(library.answer(mapping, beads, spline)),
        "trace members": members,
        "trace one answer": stage.mode(coarse, system).numpy(),
    }
    rows = {name: row_of(np.asarray(x, np.float64), trace) for name, x in found.items()}
    rows["trace members"]["ms_per_frame"] = 1e3 * seconds
    return rows


def summary(rows: list[dict], against: str = "trace members") -> dict:
    """Mean and bootstrap interval of each figure, and of each baseline less the members."""
    generator = np.random.default_rng(0)
    draws = generator.integers(len(rows), size=(1000, len(rows)))
    table: dict[str, dict] = {}
    for method in rows[0]:
        table[method] = {}
        for key in (
            "rmsd_angstrom",
            "best_rmsd_angstrom",
            "lddt",
            "bad_links_percent",
            "spread_ratio",
        ):
            if key not in rows[0][method]:
                continue
            values = np.array([row[method][key] for row in rows])
            gap = values - np.array([row[against].get(key, np.nan) for row in rows])
            table[method][key] = [values.mean(), *np.percentile(values[draws].mean(1), [2.5, 97.5])]
            table[method][f"{key} less members"] = [
                gap.mean(), *np.percentile(gap[draws].mean(1), [2.5, 97.5])
            ]  # fmt: skip
        turns = sum(row[method]["turns"] for row in rows)
        table[method]["turns_found_percent"] = (
            100 * sum(row[method]["turns_found"] for row in rows) / turns
        )
        table[method]["left_turns_percent"] = (
            100 * sum(row[method]["left_turns"] for row in rows) / turns
        )
    table["trace members"]["ms_per_frame"] = float(
        np.mean([row["trace members"]["ms_per_frame"] for row in rows])
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--residues", type=int, default=4)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stage = load_artifact(arguments.artifact)
    library = Library.of(arguments.residues, (trace for _, _, trace in chains("train", 300)))
    rows = [
        rows_of_chain(stage, library, topology, trace, arguments.residues)
        for _, topology, trace in chains("test", arguments.limit)
    ]
    table = summary(rows)
    arguments.out.write_text(
        json.dumps({"chains": len(rows), "table": table, "rows": rows}, indent=1) + "\n"
    )
    for method, figures_of in table.items():
        print(method, json.dumps(figures_of, default=float))


if __name__ == "__main__":
    main()
