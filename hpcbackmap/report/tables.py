"""The tables of a report: measures by topic, rungs on the way, and the ELBO of every stage."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from hpcbackmap.metrics.registry import Metric

__all__ = ["elbo_table", "measures_table", "metric_table", "number"]


class Topic(NamedTuple):
    """A table's heading, how to read it, the beginnings of its metric names, and whether it begins open."""

    title: str
    text: str
    beginnings: tuple[str, ...]
    open: bool = False


TOPICS = (
    Topic(
        "Distance to the truth",
        "Root-mean-square deviation from the one true structure. Several structures share the "
        "beads, so an exact sampler is not at zero: it is as far away as two of them are.",
        ("rmsd",),
        open=True,
    ),
    Topic(
        "Local environment",
        "lDDT: share of true distances within 15 Å that are kept to 0.5, 1, 2 and 4 Å, without "
        "superposition (1 is perfect). Contacts: Cα within 8 Å, three or more residues apart.",
        ("lddt", "contacts", "interaction"),
    ),
    Topic(
        "Secondary structure",
        "Helix, strand or coil of every residue by DSSP, beside the truth.",
        ("secondary", "helix"),
    ),
    Topic(
        "Covalent structure",
        "Bonds, peptide links and the trace. GED: edit distance between the bond graphs that the "
        "coordinates imply, relative to the bonds of the truth.",
        ("bond", "peptide", "omega_non", "cis_", "ca_ca"),
        open=True,
    ),
    Topic(
        "Clashes",
        "Heavy atoms more than two bonds apart that are closer than the limit, and bonds that "
        "thread a ring. Clashscore: overlaps of 0.4 Å or more, our hydrogens included, per 1,000 atoms.",
        ("clash", "residues_clash", "steric", "pierced"),
        open=True,
    ),
    Topic(
        "Side chains",
        "Torsions χ beside the truth, frame by frame, and the rotamer populations of each residue. "
        "Favoured are torsions as 98 % of the residues of good crystals have, outliers those as 0.3 % have.",
        ("chi", "rotamer"),
    ),
    Topic(
        "Backbone torsions",
        "Jensen–Shannon divergence between the distributions of generated and true angles: 0 if "
        "they are equal, 0.693 nats if they share nothing. Favoured are regions that hold 96 % of the "
        "residues of crystals, outliers lie outside of those that hold 99 %.",
        ("ramachandran", "phi", "psi", "omega"),
    ),
    Topic(
        "Handedness and Cβ",
        "Every Cα of a protein is L. Cβ deviation: distance from where N, Cα and C put an ideal Cβ.",
        ("d_residues", "flat_residues", "cb_"),
    ),
    Topic(
        "Ensemble",
        "Size, and whether members differ from one another as much as they should. CRPS: distance of the "
        "members' distribution of each coordinate to the true value, lower for sharp and honest ones.",
        ("radius", "diversity", "spread", "crps"),
    ),
    Topic(
        "Beads kept",
        "Distance between the beads of the structure and those that were given.",
        ("bead",),
    ),
)
OTHER = Topic("Other measures", "", ("",))

HIGHER = ("lddt", "exact", "auc", "recovered", "right", "secondary_structure", "favoured")
"""Parts of the names of metrics that are better when they are higher."""
AT_ONE = ("spread_ratio",)
"""Parts of the names of metrics whose best value is 1."""

ELBO_COLUMNS = (
    ("elbo_nats_per_frame", "ELBO, nats per frame", 1),
    ("elbo_nats_per_particle", "per particle", 3),
    ("iwae_nats_per_frame", "importance-weighted, nats per frame", 1),
    ("kl_nats_per_frame", "KL, nats per frame", 2),
    ("active_units_per_bead", "active units per bead", 1),
    ("latent_units", "latent units", 0),
    ("frames", "frames", 0),
)
"""Key in ``elbo.json``, heading, digits."""


class Cell(NamedTuple):
    """text, and below it the interval. row: of the record; best: of its line."""

    text: str
    interval: str = ""
    row: str = ""
    best: bool = False


class Line(NamedTuple):
    """A measure, the wished-for direction, and a cell for each row of the record."""

    label: str
    better: str
    cells: list[Cell]


class TopicLines(NamedTuple):
    """Lines under a heading that fold away unless ``open``; without a title, lines alone."""

    title: str
    text: str
    lines: list[Line]
    open: bool = True


class MeasuresTable(NamedTuple):
    """labels: of the rows of the record, which are the columns."""

    labels: list[str]
    topics: list[TopicLines]


class ElboLine(NamedTuple):
    """A stage, or the sum of all."""

    name: str
    cells: list[Cell]
    collapse: str
    is_sum: bool


class ElboTable(NamedTuple):
    """titles: of the columns that some stage has."""

    titles: list[str]
    lines: list[ElboLine]


def measures_table(metrics: tuple[Metric, ...], rows: list[dict[str, Any]]) -> MeasuresTable:
    """All metrics that some row has, by topic; those of no topic come last."""
    rest, topics = list(metrics), []
    for topic in (*TOPICS, OTHER):
        mine = [item for item in rest if item.name.startswith(topic.beginnings)]
        rest = [item for item in rest if item not in mine]
        lines = _lines(mine, rows)
        if lines:
            topics.append(TopicLines(topic.title, topic.text, lines, topic.open))
    return MeasuresTable([row["label"] for row in rows], topics)


def metric_table(metrics: tuple[Metric, ...], rows: list[dict[str, Any]]) -> MeasuresTable:
    """The same without topics."""
    return MeasuresTable(
        [row["label"] for row in rows], [TopicLines("", "", _lines(metrics, rows))]
    )


def elbo_table(record: dict[str, Any]) -> ElboTable:
    """The rows of ``elbo.json`` and their sum, with the columns that they have."""
    ladder = record.get("ladder") or None
    rows = [*record["rows"], *([ladder] if ladder else [])]
    columns = [column for column in ELBO_COLUMNS if any(column[0] in row for row in rows)]
    lines = [
        ElboLine(
            "whole ladder" if row is ladder else row["stage"],
            [_elbo_cell(row, key, digits) for key, _, digits in columns],
            "–" if row is ladder else row.get("collapse") or "none",
            row is ladder,
        )
        for row in rows
    ]
    return ElboTable([title for _, title, _ in columns], lines)


def number(value: float, digits: int) -> str:
    """A number for readers: thousands apart, a true minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"
    return text.replace("-", "−")


def _lines(metrics: Iterable[Metric], rows: list[dict[str, Any]]) -> list[Line]:
    lines = []
    for item in metrics:
        cells = [row["metrics"].get(item.name) for row in rows]
        if not any(cells):
            continue
        natural = next(
            (cell for row, cell in zip(rows, cells, strict=True) if row["row"] == "truth"), None
        )
        best = _best(item, rows, cells, natural)
        shown = [
            _cell(item, cell, row["row"], k in best)
            for k, (row, cell) in enumerate(zip(rows, cells, strict=True))
        ]
        lines.append(Line(item.label, _better(item), shown))
    return lines


def _better(item: Metric) -> str:
    """What a reader should wish for."""
    if any(part in item.name for part in AT_ONE):
        return "near 1"
    if not item.compares:
        return "≈ truth"
    return "higher ↑" if any(part in item.name for part in HIGHER) else "lower ↓"


def _best(
    item: Metric, rows: list[dict[str, Any]], cells: list[Any], natural: dict[str, Any] | None
) -> set[int]:
    """Columns of the best answers as printed; none where all are equal or the aim is unknown."""
    values = {
        k: round(cell["value"], item.digits)
        for k, (row, cell) in enumerate(zip(rows, cells, strict=True))
        if cell and cell["value"] is not None and row["row"] != "truth"
    }
    aim = natural["value"] if natural else None
    if len(values) < 2 or (not item.compares and aim is None):
        return set()
    if any(part in item.name for part in AT_ONE):
        cost = {k: abs(value - 1) for k, value in values.items()}
    elif not item.compares and aim is not None:
        cost = {k: abs(value - round(aim, item.digits)) for k, value in values.items()}
    else:
        sign = -1 if any(part in item.name for part in HIGHER) else 1
        cost = {k: sign * value for k, value in values.items()}
    least = min(cost.values())
    best = {k for k, value in cost.items() if value <= least + 1e-12}
    return best if len(best) < len(cost) else set()


def _cell(item: Metric, cell: dict[str, Any] | None, row: str, best: bool) -> Cell:
    if not cell or cell["value"] is None:
        return Cell("–", row=row, best=best)
    interval = _interval(cell.get("interval_95"), item.digits)
    return Cell(number(cell["value"], item.digits), interval, row, best)


def _elbo_cell(row: dict[str, Any], key: str, digits: int) -> Cell:
    value = row.get(key)
    if value is None:
        return Cell("–")
    interval = _interval(row.get(key.replace("_nats_per_frame", "_interval_95")), digits)
    return Cell(number(value, digits), interval)


def _interval(bounds: Any, digits: int) -> str:
    if not isinstance(bounds, list) or bounds[0] == bounds[1]:
        return ""
    low, high = (number(bound, digits) for bound in bounds)
    return f"{low} … {high}"
