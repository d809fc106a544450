r"""Beads of n residues to C-alpha for proteins never seen: the trace stage against closed-form answers.

    export HPCBACKMAP_DATA=...
    python benchmarks/quality/beads/transferable.py OUT.json [--artifact FOLDER] [--rungs 4,10] [--members 10]

A rung is a number of residues per bead, ``10``; runs of uneven length about it, ``10u``; or beads that are
means or mass centres of heavy atoms, ``10:atoms``, ``10:mass``. Rows per chain of a split of static_more;
baselines get the same closing projection as the stage. Strands are those of DSSP, which needs a backbone:
every trace gets atoms by the shipped heavy-atom stage (its one answer), the truth has its own; "true trace" is
what that stage leaves of the truth's strands. Nearest neighbour: stretches of all training chains, which are
read into chains.npz beside OUT (minutes, once; --chains names one that is there, as the recipe makes it).
Prints means with 95 % bootstrap intervals over chains, and of the paired differences from the one answer.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ensembles import data_folder
from fragments import Library
from nearest import Neighbours
from strands import StrandsOf
from trace_metrics import figures

from hpcbackmap.protein.residues import CIS_BORDER, RESIDUES
from hpcbackmap.protein.topology import Topology, topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.trace.spline import spline_weights

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
from train_trace import load_chains, read_centres, uneven

HELIX = (0.44, 0.60)
"""Distance over three residues in a helix, nm."""
FRAGMENTS = 300
"""Training chains that the fragments come from."""
POOLED = {
    "turns_found": "turns",
    "left_turns": "turns",
    "strands_found": "strands",
    "strands_wrong": "strands",
}
"""Counts over all chains, in percent of another."""
SHOWN = ("rmsd_angstrom", "best_rmsd_angstrom", "lddt", "bad_links_percent", "spread_ratio")


def chains(split: str, limit: int | None = None) -> Iterator[tuple[Topology, dict]]:
    """Topology, and ``path`` and centres (`read_centres`) of static_more chains of a split."""
    folder = data_folder() / "static_more"
    with (folder / "index.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == split]
    rows = [row for row in rows if "moleculekit" not in row["repo"]]
    for row in rows[:limit]:
        path = folder / row["file"]
        yield topology_from_sequence([row["sequence"]]), {"path": path, **read_centres(path)}


def helices(trace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which residues start a right-handed and a left-handed helical turn, both [N - 3]."""
    step = np.diff(trace, axis=0)
    volume = (np.cross(step[:-2], step[1:-1]) * step[2:]).sum(-1) / 0.38**3
    across = np.linalg.norm(trace[3:] - trace[:-3], axis=-1)
    turn = (across > HELIX[0]) & (across < HELIX[1])
    return turn & (volume > 0.3), turn & (volume < -0.3)


def row_of(members: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Figures of members [M, N, 3] of one chain, with helical turns recovered and wrong-handed, in percent."""
    cis = np.linalg.norm(np.diff(truth, axis=0), axis=-1) < CIS_BORDER
    row = figures(members[:, None], truth[None], cis)
    right, left = helices(truth)
    made = [helices(member) for member in members]
    row["turns"] = int(right.sum())
    row["turns_found"] = float(np.mean([(right & found).sum() for found, _ in made]))
    row["left_turns"] = float(np.mean([(wrong & ~left).sum() for _, wrong in made]))
    return row


@torch.no_grad()
def rows_of_chain(
    stage: Stage,
    libraries: tuple[Library, Neighbours] | None,
    topology: Topology,
    truth: dict,
    rung: str,
    members: int,
) -> dict:
    ladder, beads = coarse_of(topology, truth, rung)
    stage = stage.at_rung(f"{ladder.resolutions[2]}-ca")
    mapping, trace = ladder.mappings[1], truth["ca"]
    system = collate([stage.describe(ladder)])

    def closed(positions: np.ndarray) -> np.ndarray:
        positions = positions + (beads - mapping.apply(positions))[mapping.bead]
        trans = torch.zeros(len(system.bond_index), dtype=torch.bool)
        return close_calpha(torch.from_numpy(positions)[None].float(), system, trans).numpy()

    index, weight = spline_weights(mapping, np.array(topology.chain_index))
    spline = (weight[..., None] * beads[index]).sum(1)
    coarse = torch.from_numpy(beads)[None].float()
    noises = [
        torch.from_numpy(frame_noise(0, "benchmark", [0], member, len(beads), stage.noise_width))
        for member in range(members)
    ]
    began = time.process_time()
    drawn = torch.cat(stage.samples(coarse, system, noises)).numpy()
    seconds = (time.process_time() - began) / members
    found = {
        "bead centre": beads[mapping.bead][None],
        "spline": spline[None],
        "spline, closed": closed(spline),
        "trace members": drawn,
        "trace one answer": stage.mode(coarse, system).numpy(),
    }
    if libraries is not None:
        fragments, neighbours = libraries
        sequence = "".join(RESIDUES[name].letter for name in topology.sequence)
        found["fragments, closed"] = closed(fragments.answer(mapping, beads, spline))
        near = neighbours.answer(mapping, beads, sequence, spline)
        found["nearest neighbour, closed"] = closed(near)
    found["true trace"] = trace[None]
    strands = StrandsOf(truth["path"], ladder)
    rows = {
        name: row_of(np.asarray(x, np.float64), trace) | strands.figures(np.asarray(x))
        for name, x in found.items()
    }
    rows["trace members"]["ms"] = 1e3 * seconds
    rows["trace members"]["ms_of_200_residues"] = 2e5 * seconds / len(trace)
    rows["trace members"]["bead_error_angstrom"] = 10 * float(
        np.abs(mapping.apply(drawn.astype(np.float64)) - beads).max()
    )
    return rows


def coarse_of(topology: Topology, truth: dict, rung: str) -> tuple[Ladder, np.ndarray]:
    """Ladder with the beads of ``rung``, and the beads [B, 3] of a chain, nm."""
    size, _, of = rung.partition(":")
    of = of or "ca"
    spec = f"ucg:/{size}:{of}"
    if size.endswith("u"):
        lengths = uneven(topology.n_residues, int(size[:-1]), np.random.default_rng(0))
        spec = f"ucg:{','.join(map(str, lengths))}:{of}"
    ladder = build_ladder(topology, ["fg", "ca", spec])
    bead = ladder.mappings[1].bead
    weight = {"ca": np.ones(len(bead)), "atoms": truth["count"], "mass": truth["weight"]}[of]
    total = np.zeros((bead.max() + 1, 3))
    np.add.at(total, bead, truth[of] * weight[:, None])
    return ladder, total / np.bincount(bead, weights=weight)[:, None]


def summary(rows: list[dict], against: str = "trace one answer") -> dict:
    """Mean and bootstrap interval of each figure, and of each method less the one answer."""
    generator = np.random.default_rng(0)
    draws = generator.integers(len(rows), size=(1000, len(rows)))
    table: dict[str, dict] = {}
    for method in rows[0]:
        table[method] = {}
        for key in SHOWN:
            if key not in rows[0][method]:
                continue
            values = np.array([row[method][key] for row in rows])
            table[method][key] = [values.mean(), *np.percentile(values[draws].mean(1), [2.5, 97.5])]
            if key in rows[0][against] and method != against:
                gap = values - np.array([row[against][key] for row in rows])
                interval = np.percentile(gap[draws].mean(1), [2.5, 97.5])
                table[method][f"{key} less one answer"] = [gap.mean(), *interval]
        for key, whole in POOLED.items():
            counts = np.array([[row[method][name] for name in (key, whole, key)] for row in rows])
            counts[:, 2] -= [row[against][key] for row in rows]
            shares = 100 * share(counts[None])[0], 100 * share(counts[draws])
            low, high = np.percentile(shares[1], [2.5, 97.5], axis=0)
            for k, name in enumerate((f"{key}_percent", f"{key}_percent less one answer")):
                table[method][name] = [shares[0][k], low[k], high[k]]
    for key in ("ms", "ms_of_200_residues", "bead_error_angstrom"):
        values = [row["trace members"][key] for row in rows]
        table["trace members"][key] = float(max(values) if "error" in key else np.mean(values))
    return table


def share(counts: np.ndarray) -> np.ndarray:
    """First and third of counts [D, chains, 3], summed over chains, of the second: [D, 2]."""
    total = counts.sum(1)
    return total[:, [0, 2]] / np.maximum(total[:, 1:2], 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--rungs", default="4,10")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--chains", type=Path, help="Training chains, made if missing.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stage = load_artifact(arguments.artifact or shipped_artifact("ucg-ca", "trace"))
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for rung in arguments.rungs.split(","):
        libraries = None
        if rung.isdigit():
            traces = (truth["ca"] for _, truth in chains("train", FRAGMENTS))
            known = load_chains(arguments.chains or arguments.out.parent / "chains.npz", None)
            libraries = (
                Library.of(int(rung), traces),
                Neighbours(int(rung), [c["ca"] for c in known], [c["sequence"] for c in known]),
            )
        rows = [
            rows_of_chain(stage, libraries, topology, truth, rung, arguments.members)
            for topology, truth in chains(arguments.split, arguments.limit)
        ]
        found[rung] = {"chains": len(rows), "table": summary(rows), "rows": rows}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
        for method, values in found[rung]["table"].items():
            print(rung, method, json.dumps(values, default=float), flush=True)


if __name__ == "__main__":
    main()
