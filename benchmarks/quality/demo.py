"""What the demo reaches, and how long it takes: the record behind the table in the README.

    python benchmarks/quality/demo.py FOLDER > benchmarks/records/DATE-demo.md

Runs `hpcbackmap demo` in FOLDER (new, so that the time counts), prints a Markdown record and leaves the
figures as JSON in FOLDER/work/metrics.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header

SHOWN = (
    "rmsd_aligned_angstrom",
    "rmsd_aligned_backbone_angstrom",
    "rmsd_aligned_best_angstrom",
    "bond_graph_ged",
    "bonds_off_percent",
    "peptide_bonds_off_percent",
    "clashes_per_100_residues",
    "ramachandran_jsd_nats",
    "chi1_jsd_nats",
    "d_residues_percent",
    "radius_of_gyration_error_angstrom",
    "diversity",
    "bead_error_max_angstrom",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    begun = time.monotonic()
    command = [sys.executable, "-m", "hpcbackmap", "demo", "--output", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    minutes = (time.monotonic() - begun) / 60
    print(record(json.loads((folder / "work" / "metrics.json").read_text()), minutes))


def record(metrics: dict, minutes: float) -> str:
    rows = metrics["rows"]
    lines = [
        *header("Demo"),
        f"Wall time of `hpcbackmap demo`: {minutes:.1f} minutes.",
        "",
        f"{sum(metrics['n_frames'].values())} held-out frames, {metrics['members']} members, prior samples "
        "from the beads alone. Value and 95 % bootstrap interval over blocks of frames.",
        "",
        "| metric | " + " | ".join(row["label"] for row in rows) + " |",
        "|---|" + "---|" * len(rows),
    ]
    for name in SHOWN:
        cells = [_cell(row["metrics"].get(name)) for row in rows]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(entry: dict | None) -> str:
    if entry is None or entry["value"] is None:
        return "–"
    interval = entry.get("interval_95")
    spread = f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval and None not in interval else ""
    return f"{entry['value']:.3g}{spread}"


if __name__ == "__main__":
    main()
