"""The record of an evaluation: rows of a table, ``metrics.json``, and its five headline figures."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hpcbackmap.metrics.judge import metric
from hpcbackmap.runtime.files import write_whole

__all__ = [
    "JUDGED_BY",
    "LABELS",
    "Figure",
    "find_row",
    "five_figures",
    "validation_lines",
    "write_record",
]

JUDGED_BY = ("python", "hpcbackmap", "numpy", "scipy", "zarr", "mdtraj")
"""What the numbers of a record depend on, for its ``versions``."""
LABELS = {
    "model": "This model",
    "nearest_training_frame": "Nearest training frame",
    "bead_centre": "Bead centre",
    "truth": "Truth",
}
"""Rows, in the order of a table."""

HEADLINES = (
    "rmsd_aligned_angstrom",
    "bond_graph_ged",
    "clashes_per_100_residues",
    "ramachandran_jsd_nats",
    "d_residues_percent",
)
VALIDATION = {
    "clashscore": "Clashscore, our hydrogens",
    "ramachandran_favoured_percent": "Ramachandran favoured (%)",
    "ramachandran_outliers_percent": "Ramachandran outliers (%)",
    "rotamers_favoured_percent": "Rotamers favoured (%)",
    "rotamer_outliers_percent": "Rotamer outliers (%)",
    "cb_deviation_outliers_percent": "Cβ more than 0.25 Å off (%)",
}
"""What MolProbity sums a structure up by, and how lines call it."""
SHORT = {"nearest_training_frame": "nearest", "bead_centre": "bead centre", "truth": "truth"}
"""Rows as lines call them."""


class Figure(NamedTuple):
    """One headline figure: ours beside the trivial answers; None where it is undefined.

    judged: name of the file that stands for ours where two files are compared, without trivial answers.
    """

    label: str
    ours: float | None
    nearest_training_frame: float | None
    bead_centre: float | None
    truth: float | None
    judged: str | None = None

    def __str__(self) -> str:
        """One aligned line for a terminal."""
        values = {self.judged or "ours": self.ours}
        if not self.judged:
            values |= {"nearest": self.nearest_training_frame, "bead centre": self.bead_centre}
        if self.truth is not None or not self.judged:
            values["truth"] = self.truth
        return _line(self.label, values.items())


def _line(label: str, values: Iterable[tuple[str, float | None]]) -> str:
    shown = (f"{name} {'–' if value is None else f'{value:.3g}':<9}" for name, value in values)
    return f"{label:<42}" + " ".join(shown).rstrip()


def five_figures(record: dict[str, Any]) -> list[Figure]:
    """The five figures that sum up a record of `evaluate_campaign` or `evaluate_files`."""
    judged = _judged(record)
    return [
        Figure(
            metric(name).label,
            ours=_value(record, "model", name),
            nearest_training_frame=_value(record, "nearest_training_frame", name),
            bead_centre=_value(record, "bead_centre", name),
            truth=_value(record, "truth", name),
            judged=judged,
        )
        for name in HEADLINES
    ]


def validation_lines(record: dict[str, Any]) -> list[str]:
    """Aligned lines for a terminal: what each row of a record is worth as a structure, without a truth."""
    ours = _judged(record) or "ours"
    rows = [
        (ours if row["row"] == "model" else SHORT.get(row["row"], row["label"]), row["metrics"])
        for row in record["rows"]
    ]
    lines = []
    for name, label in VALIDATION.items():
        lines.append(_line(label, [(key, x.get(name, {}).get("value")) for key, x in rows]))
    return lines


def _judged(record: dict[str, Any]) -> str | None:
    """What lines call the file or files of a record of `evaluate_files`."""
    if "generated" not in record:
        return None
    return Path(record["generated"]).name if record.get("members", 1) == 1 else "members"


def find_row(rows: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The row of this name, None if there is none."""
    return next((row for row in rows if row["row"] == name), None)


def _value(record: dict[str, Any], row: str, name: str) -> float | None:
    found = find_row(record["rows"], row)
    return found["metrics"].get(name, {}).get("value") if found else None


def write_record(record: dict[str, Any], path: Path) -> None:
    """Write ``path`` as JSON, whole or not at all. Raises OutputError."""
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
