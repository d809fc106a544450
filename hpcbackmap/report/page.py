"""The HTML of a report: tables, figures and 3-D views inside, no other file and no network.

The markup is `page.html.j2` with `parts.html.j2`, which escape every value; what they show is put together
here. The browser is told the hashes of the page's one style and one script, and runs nothing else.
"""

import base64
import hashlib
import struct
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcbackmap.evaluation.intermediate import RUNG_METRICS
from hpcbackmap.evaluation.record import five_figures
from hpcbackmap.metrics.registry import METRICS
from hpcbackmap.report.tables import elbo_table, measures_table, metric_table, number
from hpcbackmap.report.viewer import viewer_script

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["FigureOnPage", "Section", "ViewOnPage", "page", "template"]


PER_RESIDUE = "kJ/mol per residue"


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
    items: Sequence[FigureOnPage | ViewOnPage]


def page(
    record: dict[str, Any],
    sections: list[Section],
    training: Section | None,
    elbo: dict[str, Any] | None,
    structures: dict[str, Any] | None = None,
) -> str:
    """The whole page. record: see `evaluate_campaign`; elbo: see `evaluate_elbo`, None if not made. structures:
    what the backmapping told of its structures.
    """
    from markupsafe import Markup

    style = resources.files("hpcbackmap.report").joinpath("page.css").read_text("utf-8")
    script = viewer_script()
    sections, first_view = _taken_up(sections)
    return template("page.html.j2").render(
        policy=Markup(_policy(style, script)),  # noqa: S704  # our own text
        style=Markup(style),  # noqa: S704  # a file of the package
        script=Markup(script),  # noqa: S704  # a file of the package
        title=f"Backmapping report: {record['campaign']}",
        lead=_lead(record),
        modes=record["what"].startswith("mode"),
        record=record,
        tiles=_tiles(record),
        numbers=measures_table(METRICS, record["rows"]),
        rungs=[
            {"resolution": rung["resolution"], "table": metric_table(RUNG_METRICS, rung["rows"])}
            for rung in record["rungs"]
        ],
        first_view=first_view,
        sections=[_section(section) for section in sections],
        training=training and _section(training),
        elbo=elbo and _elbo(elbo),
        made=_made(structures or {}),
        provenance=_provenance(record),
    )


@cache
def template(name: str) -> "Template":
    """A template of the page; undefined names are errors, and values are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hpcbackmap", "report"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(name)


def _policy(style: str, script: str) -> str:
    """What the browser lets this page do: its own style and script by their hashes, its pictures, no more."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _lead(record: dict[str, Any]) -> str:
    frames, systems = sum(record["n_frames"].values()), len(record["n_frames"])
    ladder = " → ".join(reversed(record["ladder"]))
    members = record["members"]
    each = "one structure" if members == 1 else f"{members} structures"
    return (
        f"{record['what'][0].upper()}{record['what'][1:]}: {each} for each of {frames} frames of "
        f"{systems} system{'s' if systems > 1 else ''}, backmapped {ladder} from nothing but the "
        "coarse beads."
    )


def _elbo(elbo: dict[str, Any]) -> dict[str, Any]:
    what = elbo.get("what") or ""
    return {
        "what": what[:1].upper() + what[1:],
        "table": elbo_table(elbo),
        "variances": [
            (row["stage"], row["variance"]) for row in elbo["rows"] if row.get("variance")
        ],
    }


def _tiles(record: dict[str, Any]) -> list[dict[str, Any]]:
    tiles = []
    for item in five_figures(record):
        beside = [
            ("nearest frame", item.nearest_training_frame),
            ("bead centre", item.bead_centre),
            ("truth", item.truth),
        ]
        shown = [(name, _plain(value)) for name, value in beside if value is not None]
        tiles.append({"label": item.label, "ours": _plain(item.ours), "beside": shown})
    return tiles


def _section(section: Section) -> dict[str, Any]:
    drawn = [
        _view(item) if isinstance(item, ViewOnPage) else _figure(item) for item in section.items
    ]
    words = {"anchor": section.anchor, "title": section.title, "text": section.text}
    return words | {"drawn": drawn}


def _taken_up(sections: list[Section]) -> tuple[list[Section], dict[str, Any] | None]:
    """The sections without the first 3-D view, which stands near the top, and that view."""
    for at, section in enumerate(sections):
        for item in section.items:
            if isinstance(item, ViewOnPage):
                rest = [other for other in section.items if other is not item]
                shorter = section._replace(items=rest)
                several = len(sections) > 1
                title = f"{item.title}: {section.title}" if several else item.title
                return (
                    [*sections[:at], shorter, *sections[at + 1 :]],
                    _view(item._replace(title=title)),
                )
    return sections, None


def _figure(item: FigureOnPage) -> dict[str, Any]:
    width, height = struct.unpack(">2I", item.png[16:24])
    return {
        "name": item.name,
        "title": item.title,
        "text": item.text,
        "width": width,
        "height": height,
        "shape": "wide" if width > 2 * height else "compact",
        "data": base64.b64encode(item.png).decode(),
    }


def _view(item: ViewOnPage) -> dict[str, Any]:
    """The data stand in a script element as they are; `viewer_data` writes them without ``<``."""
    from markupsafe import Markup

    if "<" in item.data:
        raise ValueError("data of a view could end their element")
    return {"title": item.title, "text": item.text, "json": Markup(item.data)}  # noqa: S704  # checked above


def _made(structures: dict[str, Any]) -> list[tuple[str, str]]:
    """What the run told, as readers have it; what it did not do is left out."""
    relaxation = structures.get("relaxation") or {}
    states = ", ".join(
        f"{count} {name}" for name, count in (structures.get("protonation") or {}).items()
    )
    shown = {
        "Expected error, mean": (structures.get("expected_error_angstrom"), "Å"),
        "Clashes < 2.0 Å": (structures.get("clashes_per_100_residues"), "per 100 residues"),
        "Ramachandran outliers": (structures.get("ramachandran_outliers_percent"), "%"),
        "Disulphides": (structures.get("disulphides"), "in a structure of each system"),
        "– that stayed open": (structures.get("disulphides_open"), "in all structures"),
        "Hydrogens": (structures.get("hydrogens"), f"at pH {structures.get('ph')}"),
        "States that are not the usual": (states or None, ""),
        "Relaxed": (relaxation.get("relaxed"), f"with {relaxation.get('with')}"),
        "– energy before, median": (relaxation.get("kj_per_mol_residue_before"), PER_RESIDUE),
        "– energy after, median": (relaxation.get("kj_per_mol_residue_after"), PER_RESIDUE),
        "– that could not be": (relaxation.get("failed"), "structures"),
    }
    return [
        (label, f"{_shown(value)} {unit}".strip())
        for label, (value, unit) in shown.items()
        if value is not None
    ]


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return str(value).replace("-", "−")


def _plain(value: float | None) -> str:
    if value is None:
        return "–"
    return number(value, 0) if abs(value) >= 1000 else f"{value:.3g}".replace("-", "−")


def _provenance(record: dict[str, Any]) -> list[tuple[str, str]]:
    split = record["split"]
    return [
        (
            "Frames judged",
            ", ".join(f"{key}: {count}" for key, count in record["n_frames"].items()),
        ),
        ("Frames given up", str(record["n_frames_given_up"])),
        ("Atoms", record["atoms"]),
        ("Split", f"by {split['by']}; validation {split['validation']}, test {split['test']}"),
        ("Seeds", ", ".join(f"{name} {seed}" for name, seed in record["seeds"].items())),
        ("Stores", ", ".join(f"{name} {it[:12]}" for name, it in record["stores"].items())),
        ("Campaign", record["campaign_digest"][:12]),
        ("Versions", ", ".join(f"{name} {found}" for name, found in record["versions"].items())),
    ]
