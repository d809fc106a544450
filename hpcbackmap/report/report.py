"""One HTML page about a campaign, readable anywhere, and its figures as PNG files."""

import io
import logging
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.evaluation.campaign import Sources, open_sources
from hpcbackmap.evaluation.pairing import thin
from hpcbackmap.protein.topology import Topology
from hpcbackmap.report import figures, figures_along, pictures
from hpcbackmap.report.page import FigureOnPage, Section, ViewOnPage, page
from hpcbackmap.report.sample import Shown, collect
from hpcbackmap.report.viewer import MAX_MEMBERS, viewer_data
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import read_regular, write_whole
from hpcbackmap.runtime.parsing import json_value

__all__ = ["write_report"]

log = logging.getLogger(__name__)

SHOWN_SYSTEMS = 6
"""Systems with figures of their own; the pooled figures and the tables know all."""
POOLED_FRAMES = 300
"""Frames of all systems together in the pooled figures."""

CAPTIONS = {
    "ladder": (
        "From beads to atoms",
        "One held-out frame of median size, not chosen for its result. The model is given the "
        "beads on the left and nothing else; faint spheres repeat them behind every step.",
    ),
    "members": (
        "Members of one frame",
        "All members drawn for the same input, over the truth. Where they spread, the beads do not "
        "determine the answer.",
    ),
    "residue_rmsd": (
        "Error along the chain",
        "Heavy-atom RMSD of each residue after superposing the whole molecule: mean, and the "
        "range of the middle 80 % of structures.",
    ),
    "confidence": (
        "Confidence",
        "Error that each residue was expected to have and the one that it has, as the structures lie; root "
        "mean squares over the frames and members shown, and the range of the middle 80 % of what was "
        "expected. It was calibrated for the shipped stages; others may do better or worse.",
    ),
    "frames": (
        "Error along the frames",
        "Superposed heavy-atom RMSD to the truth, radius of gyration, and clashes of heavy atoms more "
        "than two bonds apart: mean and full range over the members of each frame shown. The truth's "
        "own size and clashes are grey.",
    ),
    "ramachandran": (
        "Backbone torsions",
        "φ against ψ of all residues, one member of each frame, on one logarithmic scale. The line holds "
        "99 % of the residues of crystals other than glycine, proline and those before it. Bead centre has "
        "no torsions.",
    ),
    "rotamers": (
        "Side-chain torsions",
        "All residues that have them, all members. χ1 rotamers should stand near −60°, 60° and "
        "180°. χ2 of Asp, Phe and Tyr is counted between −90° and 90°: half a turn renames atoms.",
    ),
    "rotamer_map": (
        "Rotamers",
        "χ1 against χ2 of the residues that have both, one member of each frame, on one "
        "logarithmic scale.",
    ),
    "bond_lengths": (
        "Bond lengths",
        "Values outside a panel are counted at its edge. Good chemistry is as narrow as the "
        "truth, and no narrower.",
    ),
    "training": (
        "Training curves",
        "Above: training loss as logged and validation loss. Below: its terms in nats per frame on "
        "validation frames; a KL near zero means that the latents carry nothing.",
    ),
}
"""Title and caption of each figure."""


def write_report(campaign: Campaign, output: str | Path) -> Path:
    """Write the report of an evaluated campaign, and its figures as PNG in its working folder.

    The page needs no other file and no network. Raises InputError if the campaign is not evaluated
    yet, OutputError if something cannot be written.
    """
    output = Path(output)
    record = _read_record(campaign.path("metrics.json"))
    sources = open_sources(campaign)
    judged = {"truth": sources.truth.digest, "generated": sources.generated.digest}
    if record.get("stores") != judged:
        raise InputError(
            f"{campaign.path('metrics.json')}: judges another backmapped store than {sources.generated.path}; "
            "evaluate the campaign again"
        )
    folder = campaign.path("figures")
    sections = _system_sections(sources, folder)
    if len(sources.pairs) > 1:
        sections.insert(0, _pooled_section(sources, folder))
    text = page(
        record,
        sections,
        _training_section(campaign, folder),
        _read_elbo(campaign, sources),
        sources.generated.attributes.get("structures", {}),
    )
    write_whole(output, text)
    log.info("report: %s", output)
    return output


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json_value(read_regular(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; evaluate the campaign first") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; evaluate the campaign again") from None
    if not isinstance(record, dict) or "rows" not in record:
        raise InputError(f"{path}: not a record of an evaluation; evaluate the campaign again")
    return record


def _read_elbo(campaign: Campaign, sources: Sources) -> dict[str, Any] | None:
    """The ELBO of this campaign's stages if it was evaluated on the frames of its store."""
    path = campaign.path("elbo.json")
    if not path.exists():
        return None
    record = _read_record(path)
    if record.get("store", sources.own.digest) != sources.own.digest:
        log.warning("%s: of another frame store; left out, evaluate --elbo again", path)
        return None
    return record


def _system_sections(sources: Sources, folder: Path) -> list[Section]:
    """Pictures, 3-D view and figures of the first systems of which a frame is left."""
    many = len(sources.pairs) > 1
    found = (collect(sources, pairs) for pairs in sources.pairs)
    sections = []
    for shown in islice(filter(None, found), SHOWN_SYSTEMS):
        topology, count = shown.ladder.topology, shown.members.shape[1]
        members = "one member" if count == 1 else f"{count} members"
        text = (
            f"{topology.n_residues} residues, {topology.n_atoms} heavy atoms; {len(shown.frames)} of the "
            f"judged frames, evenly spaced, {members} each."
        )
        prefix = f"{shown.system}-" if many else ""
        items: list[FigureOnPage | ViewOnPage] = [
            ViewOnPage("Truth and members in 3-D", _view_text(count), viewer_data(shown)),
            *_draw(_drawings(shown), folder, prefix),
        ]
        sections.append(Section(f"system-{shown.system}", shown.system, text, items))
    return sections


def _view_text(members: int) -> str:
    text = "RMSD is superposed, over heavy atoms."
    if members > MAX_MEMBERS:
        text += f" The first {MAX_MEMBERS} of {members} members."
    return text


def _drawings(shown: Shown) -> dict[str, Callable[..., Any]]:
    """What draws each figure of one system, by its name, in the order of the page."""
    topology, frame = shown.ladder.topology, shown.pictured
    answers = {"model": shown.members}
    nearest = shown.baselines.get("nearest_training_frame")
    if nearest is not None:
        answers["nearest_training_frame"] = nearest[:, None]
    with_beads = answers | {"bead_centre": shown.baselines["bead_centre"][:, None]}
    truth, members = shown.truth, shown.members[frame]
    confidence = {}
    if shown.errors is not None:
        given = (topology, truth, shown.members, shown.errors)
        confidence = {"confidence": lambda: figures_along.confidence_figure(*given)}
    return {
        "ladder": lambda: pictures.ladder_picture(shown.ladder, truth[frame], shown.levels),
        "members": lambda: pictures.members_picture(shown.ladder, truth[frame], members),
        "residue_rmsd": lambda: figures_along.residue_rmsd_figure(topology, truth, with_beads),
        **confidence,
        "frames": lambda: figures_along.frame_figure(topology, shown.frames, truth, answers),
        **_distributions([shown]),
    }


def _pooled_section(sources: Sources, folder: Path) -> Section:
    thinned = thin(sources.pairs, POOLED_FRAMES)
    shown = [item for item in (collect(sources, pairs) for pairs in thinned) if item]
    text = f"Evenly spaced frames of all {len(shown)} systems; every residue counts once for each frame."
    if len(sources.pairs) > SHOWN_SYSTEMS:
        text += (
            f" Below, the first {SHOWN_SYSTEMS} systems have figures and a 3-D view of their own."
        )
    items = _draw(_distributions(shown), folder, "")
    return Section("all-systems", "All systems", text, items)


def _distributions(shown: list[Shown]) -> dict[str, Callable[..., Any]]:
    """Maps show one member of each frame, so that all panels have the same number of points."""
    one = [_ensemble(item, 1) for item in shown]
    every = [_ensemble(item, item.members.shape[1]) for item in shown]
    return {
        "ramachandran": lambda: figures.ramachandran_figure(one),
        "rotamers": lambda: figures.rotamer_figure(every),
        "rotamer_map": lambda: figures.rotamer_map_figure(one),
        "bond_lengths": lambda: figures.bond_length_figure(every),
    }


def _ensemble(shown: Shown, members: int) -> tuple[Topology, dict[str, np.ndarray]]:
    """Topology and structures [n, A, 3] of every row that has torsions."""
    model = shown.members[:, :members].reshape(-1, *shown.truth.shape[1:])
    structures = {"truth": shown.truth, "model": model} | shown.baselines
    structures.pop("bead_centre")
    return shown.ladder.topology, structures


def _draw(drawings: dict[str, Callable[..., Any]], folder: Path, prefix: str) -> list[FigureOnPage]:
    """Draw, write ``folder/<prefix><name>.png``, and return what the page needs."""
    from matplotlib import rc_context

    drawn = []
    for name, draw in drawings.items():
        with rc_context(figures.STYLE):
            buffer = io.BytesIO()
            draw().savefig(buffer, format="png")
        write_whole(folder / f"{prefix}{name}.png", buffer.getvalue())
        drawn.append(FigureOnPage(f"{prefix}{name}", *CAPTIONS[name], buffer.getvalue()))
    return drawn


def _training_section(campaign: Campaign, folder: Path) -> Section | None:
    """Training curves of the stages that this campaign trained."""
    curves = {}
    for stage in campaign.stages:
        path = campaign.path(f"stages/{stage}/metrics.jsonl")
        if path.exists():
            lines = path.read_text(errors="replace").splitlines()
            curves[stage] = list(_records(lines))
    curves = {stage: records for stage, records in curves.items() if records}
    if not curves:
        return None
    items = _draw({"training": lambda: figures_along.training_figure(curves)}, folder, "")
    return Section("training-curves", "Training", "", items)


def _records(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Records of a run; a line cut off by a crash is left out."""
    for line in lines:
        try:
            record = json_value(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            yield record
