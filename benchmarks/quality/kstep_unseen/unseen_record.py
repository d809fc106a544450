"""The comparison as Markdown."""

import sys
from collections.abc import Callable
from pathlib import Path

from judged import MEASURES, ONE
from nested import rungs_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kstep"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from header import header
from record import table

__all__ = ["markdown"]


def markdown(record: dict, pictures: list[str]) -> str:
    settings = record["settings"]
    lines = header("Several steps for unseen proteins", ("torch", "numpy", "mdtraj", "openmm"))
    lines += [
        f"{settings['minutes']:g} CPU-minutes of training per ladder, an equal share for every rung, one "
        f"network from scratch for each, {record['training_chains']} training chains. "
        f"Samples of the prior from beads alone: {settings['members']} members and one answer. "
        "Value and 95 % bootstrap interval over chains.",
        "",
    ]
    for top, part in record["tops"].items():
        lines += [f"## Beads of {top} residues: {part['chains']} unseen chains", ""]
        for title, methods in _blocks(part):
            lines += [f"{title}:", "", *_measures(part["table"], methods), ""]
        lines += ["Ladders of several steps less the one-step ladder, same chains:", ""]
        lines += [*_measures(part["gaps"], list(part["gaps"]), str), ""]
    lines += ["## Training and likelihood", "", *_costs(record), ""]
    return "\n".join([*lines, *(f"![{name}]({name})" for name in pictures)])


def _blocks(part: dict) -> list[tuple[str, list[str]]]:
    roads = list(part["costs"])
    trivial = [m for m in part["table"] if m.removesuffix(ONE) not in roads]
    return [
        ("Members", roads),
        ("One answer", [road + ONE for road in roads]),
        ("Trivial answers and the truth", trivial),
    ]


def _without_ending(method: str) -> str:
    return method.removesuffix(ONE)


def _measures(
    rows: dict, methods: list[str], label: Callable[[str], str] = _without_ending
) -> list[str]:
    shown = [item for item in MEASURES if any(item.name in rows[m] for m in methods)]
    return table(
        ["", *map(label, methods)],
        [[item.label, *(_cell(rows[m], item) for m in methods)] for item in shown],
    )


def _cell(row: dict, item) -> str:
    if item.name not in row:
        return "–"
    value, low, high = row[item.name]
    if max(map(abs, (value, low, high))) >= 1e4:
        return f"{value:.3g} [{low:.3g}, {high:.3g}]"
    return f"{value:.{item.digits}f} [{low:.{item.digits}f}, {high:.{item.digits}f}]"


def _costs(record: dict) -> list[str]:
    head = [
        "ladder",
        "rung",
        "CPU min",
        "CPU ms a step",
        "steps",
        "parameters",
        "peak MB",
        "before",
        "nats",
    ]
    rows = []
    for part in record["tops"].values():
        for road, costs in part["costs"].items():
            for (coarse, fine), cost in zip(rungs_of(road), costs, strict=True):
                name = f"{coarse}-{fine}"
                rows.append([
                    road,
                    name,
                    f"{cost['cpu_minutes']:.1f}",
                    f"{6e4 * cost['cpu_minutes'] / cost['steps']:.0f}",
                    str(cost["steps"]),
                    f"{cost['parameters']:,}",
                    f"{cost['peak_mb']:.0f}",
                    f"{cost['peak_before_mb']:.0f}",
                    f"{part['nats'][road][name]:.1f}",
                ])  # fmt: skip
    return table(head, rows)
