"""What a fine stage loses on generated C-alpha traces, and what noise in its training gives back.

    HPCBACKMAP_DATA=... python benchmarks/quality/kstep/exposure.py FOLDER > record.md

The stage ca-fg is trained on true C-alpha traces, but is given those of the stage before it. For each protein
it is trained once for every size of the noise on its input (``coarse_noise``, nm), and judged with true and
with generated traces of the same held-out frames. Results in FOLDER/rows are not computed again. Leaves
FOLDER/exposure.json and FOLDER/exposure.png and prints a table as Markdown.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
from case import Budget, Case
from ladders import PROTEINS, make_campaign, write_campaign
from plots import plot_exposure
from record import cell, header, table
from rows import frame_blocks, judge_answers
from training import train_in_process

from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.runtime.mpi import get_comm

log = logging.getLogger("exposure")

BEADS = 10
INPUTS = ("true", "generated")
COMPARED = (
    ("rmsd_aligned_angstrom", "RMSD Å"),
    ("lddt", "lDDT"),
    ("bond_graph_ged", "GED"),
    ("clashes_per_100_residues", "clashes/100"),
    ("clashes_severe_per_100_residues", "< 1.2 Å/100"),
    ("omega_nonplanar_percent", "ω not planar %"),
)
DISTRIBUTIONS = (("ramachandran_jsd_nats", "φψ JSD"), ("chi1_jsd_nats", "χ1 JSD"))


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    data = Path(os.environ.get("HPCBACKMAP_DATA") or "missing")
    if not data.is_dir():
        sys.exit("set HPCBACKMAP_DATA to the folder of the protein ensembles")
    folder = arguments.folder.resolve()
    budget = Budget(data, folder, 2 * arguments.seconds, arguments.frames)
    record = {"seconds": arguments.seconds, "beads": BEADS, "noises": arguments.noises, "cases": []}
    for name in arguments.proteins:
        case = Case(PROTEINS[name], BEADS, budget)
        rows = [_row(case, noise, source) for noise in arguments.noises for source in INPUTS]
        record["cases"].append(
            {"protein": name, "frames": len(case.frames), "rows": rows, "gains": _gains(case, rows)}
        )
    (folder / "exposure.json").write_text(json.dumps(record, indent=1, allow_nan=False))
    plot_exposure(record, folder / "exposure.png")
    print(_markdown(record))


def _row(case: Case, noise: float, source: str) -> dict:
    """Figures of the stage trained with ``noise`` on true or generated traces; ``frames``: values per frame."""
    path = case.budget.folder / "rows" / f"exposure-{case.protein.name}-{noise:g}-{source}.json"
    if not path.exists():
        artifact, cost = _train(case, noise, "ca-fg")
        trace = case.read("ca")[:, None]
        if source == "generated":
            coarse, _ = _train(case, 0.0, f"{case.coarsest}-ca")
            trace = case.draw([coarse], case.ladder, case.read(case.coarsest)[:, None])["ca"]
        members = case.draw([artifact], case.ladder, trace)["fg"]
        metrics, rows = judge_answers(case, members)
        means = {name: rows[name].mean(1).tolist() for name, _ in COMPARED}
        row = {"noise": noise, "input": source, "metrics": metrics, "frames": means, "cost": cost}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(row, allow_nan=False))
        log.info("%s, noise %g nm, %s traces", case.protein.name, noise, source)
    return json.loads(path.read_text())


def _train(case: Case, noise: float, stage: str) -> tuple[str, dict]:
    """Artifact and cost of a stage of the two-step ladder."""
    budget = case.budget
    folder = budget.folder / case.protein.name / f"noise-{noise:g}"
    campaign = make_campaign(case.protein, budget.data, folder, case.beads, 2, budget.seconds)
    fine = campaign.stages["ca-fg"]
    model = fine.model.model_copy(update={"coarse_noise": noise})
    stages = {**campaign.stages, "ca-fg": fine.model_copy(update={"model": model})}
    campaign = campaign.model_copy(update={"stages": stages})
    written = write_campaign(campaign)
    ingest(campaign, get_comm())
    cost = train_in_process(written, stage)
    return str(campaign.path(f"stages/{stage}/artifact")), cost


def _gains(case: Case, rows: list[dict]) -> list[dict]:
    """Change by noise in training, of the same frames: mean and 95 % interval over blocks of frames."""
    plain = {row["input"]: row for row in rows if row["noise"] == 0}
    numbers, found = frame_blocks(case), []
    for row in rows:
        if row["noise"] == 0 or row["input"] not in plain:
            continue
        changes = {
            name: _change(row["frames"][name], plain[row["input"]]["frames"][name], numbers)
            for name, _ in COMPARED
        }
        found.append({"noise": row["noise"], "input": row["input"], "changes": changes})
    return found


def _change(values: list[float], plain: list[float], numbers: np.ndarray) -> dict:
    gap = np.array(values) - np.array(plain)
    sums, sizes = np.bincount(numbers, weights=gap), np.bincount(numbers)
    draws = np.random.default_rng(0).integers(len(sums), size=(1000, len(sums)))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    interval = [float(x) for x in np.percentile(means, (2.5, 97.5))]
    return {"value": float(gap.mean()), "interval_95": interval}


def _markdown(record: dict) -> str:
    lines = header("Exposure bias of the fine stage")
    lines += [
        f"Stage ca-fg, {record['seconds']:g} CPU seconds of training for each; generated traces come from a "
        f"stage of {record['beads']} beads to Cα with the same budget. Prior samples, 5 members; value and "
        "95 % bootstrap interval over held-out frames.",
        "",
    ]
    head = ["Cα traces", "noise nm", *(label for _, label in COMPARED + DISTRIBUTIONS)]
    changed = ["Cα traces", "noise nm", *(label for _, label in COMPARED)]
    for case in record["cases"]:
        cells = [
            [row["input"], f"{row['noise']:g}"]
            + [cell(row, "metrics", name) for name, _ in COMPARED + DISTRIBUTIONS]
            for row in sorted(case["rows"], key=lambda row: INPUTS.index(row["input"]))
        ]
        gains = [
            [
                gain["input"],
                f"{gain['noise']:g}",
                *(cell(gain, "changes", name) for name, _ in COMPARED),
            ]
            for gain in sorted(case["gains"], key=lambda gain: INPUTS.index(gain["input"]))
        ]
        lines += [f"## {case['protein']}, {case['frames']} frames", "", *table(head, cells), ""]
        lines += ["Change by the noise, same frames:", "", *table(changed, gains), ""]
    return "\n".join([*lines, "![exposure.png](exposure.png)"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU seconds per training")
    parser.add_argument("--frames", type=int, default=20, help="held-out frames judged at most")
    parser.add_argument("--proteins", nargs="+", choices=PROTEINS, default=["ped00151", "adk"])
    parser.add_argument("--noises", nargs="+", type=float, default=[0.0, 0.03])
    return parser.parse_args()


if __name__ == "__main__":
    main()
