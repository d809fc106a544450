"""The HTML of a report: tables, figures and 3-D views inside, no other file and no network."""

import base64
import html
import struct
from importlib import resources
from typing import NamedTuple

from hpcbackmap.evaluation.intermediate import RUNG_METRICS
from hpcbackmap.evaluation.record import five_figures
from hpcbackmap.metrics.registry import METRICS
from hpcbackmap.report.tables import elbo_table, measures_table, metric_table, number
from hpcbackmap.report.viewer import viewer_script

__all__ = ["FigureOnPage", "Section", "ViewOnPage", "page"]

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
"""What the browser lets this page do: nothing that leaves it."""
VIEW_TEXT = (
    "Drag to turn, shift and drag (or two fingers) to move; click it, then wheel or pinch to zoom. "
    "With the keyboard: arrows, plus, minus, 0. Structures lie where the beads put them; other "
    "frames are turned so that their truths lie over one another."
)
PRIOR_TEXT = (
    "A member is a prior sample: the model is given the coarse beads, draws its latents from the "
    "prior p(z | beads) and decodes them. Nothing of the true structure reaches it; what it drew "
    "differs from member to member. A reconstruction, which lets an encoder look at the truth "
    "first, would look far better and say little; none is shown here."
)
MODE_TEXT = (
    "The structures are modes: for each frame the one most likely answer, without noise. Nothing "
    "of the true structure reaches the model, which is given the coarse beads alone. A mode is "
    "made to be near the truth; for distributions look at prior samples."
)
ELBO_TEXT = (
    "Lower bound on the log density that the model gives to the held-out frames, in nats (higher is "
    "better); lengths in nm, densities on the set of fine structures that have the given beads, so "
    "ladders with other steps can be compared by their totals. The importance-weighted bound is "
    "never below it on average; their distance tells how far the encoder is from the exact "
    "posterior. KL is what the latents carry; a unit is active if it carries more than 0.01 nats. "
    "No unit active means posterior collapse: the decoder ignores its latents. Prior collapse: "
    "members hardly differ."
)


class FigureOnPage(NamedTuple):
    """A PNG with its heading and caption."""

    name: str
    title: str
    text: str
    png: bytes


class ViewOnPage(NamedTuple):
    """A 3-D view; data: see `viewer.viewer_data`."""

    title: str
    text: str
    data: str


class Section(NamedTuple):
    """A part of the page with a heading of its own."""

    anchor: str
    title: str
    text: str
    items: list[FigureOnPage | ViewOnPage]


def page(record: dict, sections: list[Section], training: Section | None, elbo: dict | None) -> str:
    """The whole page. record: see `evaluate_campaign`; elbo: see `evaluate_elbo`, None if not made."""
    title = f"Backmapping report: {record['campaign']}"
    parts = [("numbers", "Numbers", _numbers(record))]
    parts += [
        (f"rung-{rung['resolution']}", f"On the way: {rung['resolution']}", _rung(rung))
        for rung in record["rungs"]
    ]
    parts += [(item.anchor, item.title, _section(item)) for item in sections]
    if elbo:
        parts.append(("elbo", "ELBO of every stage", _elbo(elbo)))
    if training:
        parts.append((training.anchor, training.title, _section(training)))
    parts.append(("provenance", "Where this comes from", _provenance(record)))
    links = "".join(f'<li><a href="#{key}">{html.escape(name)}</a></li>' for key, name, _ in parts)
    body = [
        f"<header><h1>{html.escape(title)}</h1>",
        f'<p class="lead">{html.escape(_lead(record))}</p>',
        f'<nav aria-label="Contents"><ul>{links}</ul></nav></header>',
        _tiles(record),
        f"<p>{html.escape(MODE_TEXT if record['what'].startswith('mode') else PRIOR_TEXT)}</p>",
        *(
            f'<section id="{key}"><h2>{html.escape(name)}</h2>{content}</section>'
            for key, name, content in parts
        ),
    ]
    style = resources.files("hpcbackmap.report").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main><script>{viewer_script()}</script></body></html>\n"
    )


def _lead(record: dict) -> str:
    frames, systems = sum(record["n_frames"].values()), len(record["n_frames"])
    ladder = " → ".join(reversed(record["ladder"]))
    members = record["members"]
    each = "one structure" if members == 1 else f"{members} structures"
    return (
        f"{record['what'][0].upper()}{record['what'][1:]}: {each} for each of {frames} frames of "
        f"{systems} system{'s' if systems > 1 else ''}, backmapped {ladder} from nothing but the "
        "coarse beads."
    )


def _numbers(record: dict) -> str:
    text = (
        "Means over structures; below each its 95 % interval from a bootstrap over blocks of "
        f"neighbouring frames ({record['bootstrap']} resamples; members stay with their frame). The "
        "unit stands in brackets, the wished-for direction beside it; ★ marks the best answer of a "
        "row. The baselines answer the same frames and go through the same code: the nearest training "
        f"frame is the one of {record['n_training_frames']} whose beads superpose best, bead centre "
        "puts every atom in the middle of its bead. Where a row has a value for the truth itself, "
        "that is what is natural."
    )
    return f"<p>{html.escape(text)}</p>{measures_table(METRICS, record['rows'])}"


def _rung(item: dict) -> str:
    name = html.escape(item["resolution"])
    return (
        f"<p>The same frames at the intermediate resolution {name}, before finer particles are "
        f"placed.</p>{metric_table(RUNG_METRICS, item['rows'])}"
    )


def _elbo(elbo: dict) -> str:
    stages = [row for row in elbo["rows"] if row.get("variance")]
    lines = "".join(
        f"<dt>{html.escape(row['stage'])}, variance</dt><dd>{html.escape(str(row['variance']))}</dd>"
        for row in stages
    )
    what = f"{elbo['what']}. " if elbo.get("what") else ""
    return f"<p>{html.escape(what[:1].upper() + what[1:] + ELBO_TEXT)}</p>{elbo_table(elbo)}" + (
        f"<dl>{lines}</dl>" if lines else ""
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


def _section(section: Section) -> str:
    text = f"<p>{html.escape(section.text)}</p>" if section.text else ""
    return text + "".join(
        f"<h3>{html.escape(item.title)}</h3>"
        + (_view(item) if isinstance(item, ViewOnPage) else _figure(item))
        for item in section.items
    )


def _figure(item: FigureOnPage) -> str:
    data = base64.b64encode(item.png).decode()
    width, height = struct.unpack(">2I", item.png[16:24])
    shape = "wide" if width > 2 * height else "compact"
    return (
        f'<figure id="{item.name}"><div class="scroll"><img class="{shape}" '
        f'width="{width}" height="{height}" alt="{html.escape(f"{item.title}. {item.text}")}" '
        f'src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{html.escape(item.text)}</figcaption></figure>"
    )


def _view(item: ViewOnPage) -> str:
    return (
        f'<div class="viewer"><script type="application/json">{item.data}</script>'
        "<noscript>The 3-D view needs JavaScript; the pictures below do not.</noscript></div>"
        f'<p class="note">{html.escape(item.text)} <span class="hint">{VIEW_TEXT}</span></p>'
    )


def _plain(value: float | None) -> str:
    if value is None:
        return "–"
    return number(value, 0) if abs(value) >= 1000 else f"{value:.3g}".replace("-", "−")


def _provenance(record: dict) -> str:
    split = record["split"]
    lines = {
        "Frames judged": ", ".join(
            f"{name}: {count}" for name, count in record["n_frames"].items()
        ),
        "Frames given up": str(record["n_frames_given_up"]),
        "Atoms": record["atoms"],
        "Split": f"by {split['by']}; validation {split['validation']}, test {split['test']}",
        "Seeds": ", ".join(f"{name} {seed}" for name, seed in record["seeds"].items()),
        "Stores": ", ".join(f"{name} {digest[:12]}" for name, digest in record["stores"].items()),
        "Campaign": record["campaign_digest"][:12],
        "Versions": ", ".join(f"{name} {found}" for name, found in record["versions"].items()),
    }
    items = "".join(f"<dt>{key}</dt><dd>{html.escape(value)}</dd>" for key, value in lines.items())
    return f"<dl>{items}</dl>"
