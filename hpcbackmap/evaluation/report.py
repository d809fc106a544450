"""One HTML page about a campaign, readable anywhere, and its figures as PNG files."""

import io
import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcbackmap.config import Campaign
from hpcbackmap.errors import InputError
from hpcbackmap.evaluation import figures, pictures
from hpcbackmap.evaluation.evaluate import Sources, open_sources
from hpcbackmap.evaluation.page import FigureOnPage, page
from hpcbackmap.evaluation.pairing import Pairs, read_members, thin
from hpcbackmap.evaluation.reading import read_frames
from hpcbackmap.evaluation.record import write_atomically
from hpcbackmap.evaluation.shape import radius_of_gyration
from hpcbackmap.resolution.ladder import Ladder

__all__ = ["write_report"]

log = logging.getLogger(__name__)

SHOWN_FRAMES = 100
"""Held-out frames in the figures; the tables come from all that were judged."""


class Shown(NamedTuple):
    """Frames of one system in the figures. members [F, M, A, 3], nearest [F, A, 3] or None; nm.

    levels: the first member of the pictured frame at every resolution that is stored.
    """

    ladder: Ladder
    system: str
    truth: np.ndarray
    members: np.ndarray
    nearest: np.ndarray | None
    pictured: int
    levels: dict[str, np.ndarray]


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
    shown = _collect(campaign, sources)
    drawn = []
    for name, title, text, image in _draw(campaign, shown):
        write_atomically(campaign.path("figures") / f"{name}.png", image)
        drawn.append(FigureOnPage(name, title, text, image))
    write_atomically(output, page(record, drawn, shown.system).encode())
    log.info("report: %s", output)
    return output


def _read_record(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; evaluate the campaign first") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; evaluate the campaign again") from None


def _collect(campaign: Campaign, sources: Sources) -> Shown:
    """Evenly spaced held-out frames of the first system, without those that were given up."""
    pairs = thin(sources.pairs[:1], SHOWN_FRAMES)[0]
    members = read_members(sources.generated, pairs, "fg")
    whole = np.isfinite(members).all((1, 2, 3))
    pairs, members = Pairs(pairs.system, pairs.frames[whole], pairs.rows[whole]), members[whole]
    ladder = sources.truth.system(pairs.system).ladder
    coarsest = ladder.resolutions[-1]
    truth = read_frames(sources.truth, pairs.system, "fg", pairs.frames)
    beads = read_frames(sources.truth, pairs.system, coarsest, pairs.frames)
    nearest = sources.nearest(pairs.system, beads)
    pictured = _typical(ladder, truth)
    levels = _levels(sources, pairs.system, ladder, pairs.rows[pictured, :1])
    levels[coarsest] = beads[pictured]
    return Shown(ladder, pairs.system, truth, members, nearest, pictured, levels)


def _typical(ladder: Ladder, truth: np.ndarray) -> int:
    """The frame of median size: neither the best nor the worst answer is picked for the picture."""
    size = radius_of_gyration(ladder.topology, truth)
    return int(np.argsort(size)[len(size) // 2])


def _levels(
    sources: Sources, system: str, ladder: Ladder, row: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        name: read_frames(sources.generated, system, name, row)[0]
        for name in ladder.resolutions[:-1]
        if name in sources.generated.resolutions
    }


def _draw(campaign: Campaign, shown: Shown):
    """Name, title, caption and PNG of every figure, in the order of the page."""
    from matplotlib import rc_context

    topology = shown.ladder.topology
    made = {"truth": shown.truth, "model": shown.members[:, 0]}
    structures = dict(made)
    answers = {"model": shown.members}
    if shown.nearest is not None:
        structures["nearest"] = shown.nearest
        answers["nearest"] = shown.nearest[:, None]
    curves = _training_curves(campaign)
    frame = shown.pictured
    drawings = [
        ("ladder", lambda: pictures.ladder_picture(shown.ladder, shown.truth[frame], shown.levels)),
        (
            "members",
            lambda: pictures.members_picture(
                shown.ladder, shown.truth[frame], shown.members[frame]
            ),
        ),
        ("residue_rmsd", lambda: figures.residue_rmsd_figure(topology, shown.truth, answers)),
        ("ramachandran", lambda: figures.ramachandran_figure(topology, structures)),
        ("chi1", lambda: figures.chi1_figure(topology, structures)),
        ("bond_lengths", lambda: figures.bond_length_figure(topology, made)),
        ("radius_of_gyration", lambda: figures.radius_figure(topology, shown.truth, answers)),
    ]
    if curves:
        drawings.append(("training", lambda: figures.training_figure(curves)))
    for name, draw in drawings:
        with rc_context(figures.STYLE):
            buffer = io.BytesIO()
            draw().savefig(buffer, format="png")
        yield name, *CAPTIONS[name], buffer.getvalue()


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
    "ramachandran": (
        "Backbone torsions",
        "All residues, one member of each frame, on one logarithmic scale.",
    ),
    "chi1": (
        "First side-chain torsion",
        "All residues that have one, one member of each frame. Rotamers should stand at −60°, 60° "
        "and 180°.",
    ),
    "bond_lengths": (
        "Bond lengths",
        "Values outside a panel are counted at its edge. Good chemistry is as narrow as the "
        "truth, and no narrower.",
    ),
    "radius_of_gyration": (
        "Size",
        "Radius of gyration of every generated structure against its own true frame.",
    ),
    "training": (
        "Training",
        "Loss of every stage; validation uses frames that are neither trained on nor judged.",
    ),
}
"""Title and caption of each figure."""


def _training_curves(campaign: Campaign) -> dict[str, list[dict]]:
    """Records of each stage's ``metrics.jsonl``; a line cut off by a crash is left out."""
    curves = {}
    for stage in campaign.stages:
        path = campaign.path(f"stages/{stage}/metrics.jsonl")
        if not path.exists():
            continue
        records = [_json(line) for line in path.read_text(errors="replace").splitlines()]
        curves[stage] = [r for r in records if isinstance(r, dict) and "step" in r]
    return {stage: records for stage, records in curves.items() if records}


def _json(line: str):
    try:
        return json.loads(line)
    except ValueError:
        return None
