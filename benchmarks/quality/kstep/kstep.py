"""One step against several, from the same beads and with the same CPU time of training.

    HPCBACKMAP_DATA=... python benchmarks/quality/kstep/kstep.py FOLDER > record.md

For each protein and number of beads: a 1-step (beads to heavy atoms), a 2-step (beads to C-alpha to heavy
atoms; also with a heavy-atom stage that begins with the shipped weights) and a 3-step ladder, members, one
answer and the mean of members of each, beside bead centres, the nearest training frame and regressions. Every
row is a file in FOLDER/rows; what is there is not computed again. Leaves FOLDER/kstep.json and
FOLDER/kstep-*.png and prints the tables as Markdown.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from case import Budget, Case
from ladders import PROTEINS
from record import kstep_record
from rows import ROWS, compute_row

log = logging.getLogger("kstep")


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    data = Path(os.environ.get("HPCBACKMAP_DATA") or "missing")
    if not data.is_dir():
        sys.exit("set HPCBACKMAP_DATA to the folder of the protein ensembles")
    folder, energy = arguments.folder.resolve(), not arguments.no_energy
    budget = Budget(data, folder, arguments.seconds, arguments.frames, energy)
    record = {"seconds": budget.seconds, "cases": []}
    for name in arguments.proteins:
        for beads in PROTEINS[name].beads:
            if not arguments.beads or beads in arguments.beads:
                case = Case(PROTEINS[name], beads, budget)
                record["cases"].append(_case_record(case, arguments.rows))
                path = budget.folder / "kstep.json"
                path.write_text(json.dumps(record, indent=1, allow_nan=False))
    print(kstep_record(record, budget.folder))


def _case_record(case: Case, wanted: Sequence[str] = ROWS) -> dict:
    rows = {}
    for name in wanted:
        path = case.budget.folder / "rows" / f"{_key(case, name)}.json"
        if not path.exists():
            row = compute_row(case, name)
            path.parent.mkdir(exist_ok=True)
            scratch = path.with_suffix(".part")
            scratch.write_text(json.dumps(row, allow_nan=False))
            scratch.replace(path)
            log.info("%s, %d beads: %s", case.protein.name, case.beads, name)
        rows[name] = json.loads(path.read_text())
    return {
        "protein": case.protein.name,
        "residues": case.protein.residues,
        "beads": case.beads,
        "frames": len(case.frames),
        "training_frames": len(case.training_frames),
        "rows": rows,
    }


def _key(case: Case, name: str) -> str:
    """The truth is the same for every number of beads."""
    name_of_case = case.protein.name if name == "truth" else f"{case.protein.name}-{case.beads}"
    return f"{name_of_case}-{name}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU seconds per ladder")
    parser.add_argument("--frames", type=int, default=20, help="held-out frames judged at most")
    parser.add_argument("--proteins", nargs="+", choices=PROTEINS, default=list(PROTEINS))
    parser.add_argument("--beads", nargs="+", type=int, help="only these bead counts")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--no-energy", action="store_true", help="no energies after relaxation")
    return parser.parse_args()


if __name__ == "__main__":
    main()
