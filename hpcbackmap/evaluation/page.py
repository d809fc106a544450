"""The HTML of a report: tables, figures inside, no other file."""

import base64
import html
import struct
from typing import NamedTuple

from hpcbackmap.evaluation.judge import METRICS, Metric
from hpcbackmap.evaluation.record import five_figures
from hpcbackmap.evaluation.rungs import RUNG_METRICS

__all__ = ["FigureOnPage", "page"]

GROUPS = (
    ("Distance to the truth", "rmsd"),
    ("Covalent structure", "bond", "peptide", "omega_non", "cis_", "ca_ca"),
    ("Contacts", "clashes", "residues_clashing"),
    ("Distributions", "ramachandran", "phi", "psi", "omega_jsd", "chi1"),
    ("Handedness", "d_residues", "flat_residues", "cb_inverted"),
    ("Ensemble", "radius", "diversity"),
    ("Beads kept", "bead"),
)
"""Headings of the table and the beginnings of the metric names below each."""

STYLE = """
:root { --ink: #1f2430; --quiet: #6b7280; --line: #e5e7eb; --accent: #0e7490; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; }
p { max-width: 46rem; }
.lead { color: var(--quiet); font-size: 1.05rem; margin-top: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: .8rem;
  margin: 1.6rem 0; }
.tile { border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem; }
.tile b { display: block; font-size: 1.75rem; color: var(--accent); line-height: 1.2; }
.tile span { display: block; color: var(--quiet); font-size: .82rem; line-height: 1.4; }
.tile .name { color: var(--ink); min-height: 3.6em; }
figure { margin: 1rem 0 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure img.compact { max-height: 30rem; width: auto; }
figcaption { color: var(--quiet); font-size: .92rem; max-width: 46rem; margin-top: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:first-child { white-space: normal; min-width: 15rem; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
td.model { color: var(--accent); font-weight: 600; }
td small { display: block; color: var(--quiet); font-weight: 400; font-size: .78rem;
  line-height: 1.2; }
tr.group th { text-align: left; padding-top: 1.2rem; border-bottom: 1px solid var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .9rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 560px) {
  figure img.wide { max-width: none; width: 680px; }
  th, td { padding: .3rem .35rem; } thead th { white-space: normal; } td:first-child { min-width: 8.5rem; }
  table { font-size: .8rem; } td small { font-size: .7rem; }
  .tile .name { min-height: 0; }
  h1 { font-size: 1.5rem; } dl { grid-template-columns: 1fr; } dt { margin-top: .5rem; } }
"""


class FigureOnPage(NamedTuple):
    name: str
    title: str
    text: str
    png: bytes


def page(record: dict, figures: list[FigureOnPage], system: str) -> str:
    """The whole page. record: see `evaluate_campaign`; system: the one that the figures show."""
    first, rest = figures[0], figures[1:]
    title = f"Backmapping report: {record['campaign']}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lead">{html.escape(_lead(record))}</p>',
        _tiles(record),
        _figure(first),
        "<h2>Numbers</h2>",
        f"<p>{html.escape(_how_to_read(record))}</p>",
        _table(METRICS, record["rows"], grouped=True),
        *(_rung(item) for item in record["rungs"]),
        *(f"<h2>{html.escape(item.title)}</h2>{_figure(item)}" for item in rest),
        "<h2>Where this comes from</h2>",
        _provenance(record, system),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _lead(record: dict) -> str:
    frames = sum(record["n_frames"].values())
    ladder = " → ".join(reversed(record["ladder"]))
    members = record["members"]
    each = "one structure" if members == 1 else f"{members} structures"
    return (
        f"{record['what'][0].upper()}{record['what'][1:]}: {each} for each of {frames} frames, "
        f"backmapped {ladder} from nothing but the coarse beads."
    )


def _how_to_read(record: dict) -> str:
    return (
        "Means over structures, with 95 % intervals from a bootstrap over input frames "
        f"({record['bootstrap']} resamples; frames close in time resemble each other, so true "
        "intervals are wider). The baselines answer the same frames and go through the same code: "
        f"the nearest training frame is the one of {record['n_training_frames']} whose beads "
        "superpose best; bead centre puts every atom in the middle of its bead. The truth's own "
        "column shows what is natural."
    )


def _tiles(record: dict) -> str:
    tiles = []
    for item in five_figures(record):
        beside = [
            ("nearest frame", item.nearest_training_frame),
            ("bead centre", item.bead_centre),
            ("truth", item.truth),
        ]
        lines = "".join(
            f"<span>{name}: {_plain(value)}</span>" for name, value in beside if value is not None
        )
        tiles.append(
            f'<div class="tile"><span class="name">{html.escape(item.label)}</span>'
            f"<b>{_plain(item.ours)}</b>{lines}</div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _figure(item: FigureOnPage) -> str:
    data = base64.b64encode(item.png).decode()
    width, height = struct.unpack(">2I", item.png[16:24])
    shape = "wide" if width > 2 * height else "compact"
    return (
        f'<figure id="{item.name}"><div class="scroll"><img class="{shape}" '
        f'alt="{html.escape(item.title)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{html.escape(item.text)}</figcaption></figure>"
    )


def _rung(item: dict) -> str:
    name = html.escape(item["resolution"])
    return (
        f"<h2>On the way: {name}</h2><p>The same frames at the intermediate resolution {name}, "
        f"before finer particles are placed.</p>{_table(RUNG_METRICS, item['rows'])}"
    )


def _table(metrics: tuple[Metric, ...], rows: list[dict], grouped: bool = False) -> str:
    head = "".join(f"<th>{html.escape(row['label'])}</th>" for row in rows)
    lines, heading = [], None
    for item in metrics:
        cells = [row["metrics"].get(item.name) for row in rows]
        if not any(cells):
            continue
        group = (
            next((g[0] for g in GROUPS if item.name.startswith(g[1:])), None) if grouped else None
        )
        if group != heading:
            lines.append(f'<tr class="group"><th colspan="{len(rows) + 1}">{group}</th></tr>')
            heading = group
        shown = "".join(
            '<td class="{}">{}</td>'.format(row["row"], _cell(item, cell))
            for row, cell in zip(rows, cells, strict=True)
        )
        lines.append(f"<tr><td>{html.escape(item.label)}</td>{shown}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(item: Metric, cell: dict | None) -> str:
    if not cell or cell["value"] is None:
        return "–"
    text = _number(cell["value"], item.digits)
    if cell["interval_95"] and cell["interval_95"][0] != cell["interval_95"][1]:
        low, high = (_number(bound, item.digits) for bound in cell["interval_95"])
        text += f"<small>{low} … {high}</small>"
    return text


def _number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}".replace("-", "−")


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _provenance(record: dict, system: str) -> str:
    split = record["split"]
    lines = {
        "Frames judged": ", ".join(
            f"{name}: {count}" for name, count in record["n_frames"].items()
        ),
        "Frames given up": str(record["n_frames_given_up"]),
        "Atoms": record["atoms"],
        "Split": f"by {split['by']}; validation {split['validation']}, test {split['test']}",
        "Figures show": system,
        "Seeds": ", ".join(f"{name} {seed}" for name, seed in record["seeds"].items()),
        "Stores": ", ".join(f"{name} {digest[:12]}" for name, digest in record["stores"].items()),
        "Campaign": record["campaign_digest"][:12],
        "Versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
    }
    items = "".join(f"<dt>{key}</dt><dd>{html.escape(value)}</dd>" for key, value in lines.items())
    return f"<dl>{items}</dl>"
