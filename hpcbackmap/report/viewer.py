"""The data behind the 3-D view of a report; ``viewer.js`` draws it.

Shapes: F frames, M members, S structures (truth, members, nearest training frame), A heavy atoms; nm.
"""

import base64
import json
from importlib import resources
from typing import Any

import numpy as np

from hpcbackmap.metrics.registry import ANGSTROM
from hpcbackmap.metrics.rmsd import aligned_rmsd, superpose
from hpcbackmap.protein.residues import BACKBONE
from hpcbackmap.protein.topology import Topology
from hpcbackmap.report.drawing import View
from hpcbackmap.report.sample import Shown

__all__ = ["MAX_MEMBERS", "viewer_data", "viewer_script"]

TRUTH_COLOUR = "#4b5563"
MEMBER_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""After Okabe and Ito: apart for every common kind of colour vision. One member each."""
MAX_MEMBERS = len(MEMBER_COLOURS)
NEAREST_COLOUR = "#e69f00"
VISIBLE_MEMBERS = 2
"""Members that are switched on when the page opens."""
MAX_FRAMES = 20
BUDGET = 1_000_000
"""Bytes of coordinates of one system, before base64."""
FITTED = 75
"""Percent of the frames that fit into the window as it opens; unfolded ones may not."""
MARGIN = 0.2
"""nm around the structures."""
ERROR_STEP = 0.05
"""Angstrom; of the expected errors that colour residues."""
QUANTA = 32767
"""Steps of a coordinate to each side of the centre (int16)."""


def viewer_script() -> str:
    """The program of the view, JavaScript without dependencies."""
    return resources.files("hpcbackmap.report").joinpath("viewer.js").read_text("utf-8")


def viewer_data(shown: Shown) -> str:
    """JSON for one view, fit to stand inside a ``script`` element.

    ``frames[].errors``, where the store has them, is base64 of uint8 [M, R]; times ``errorStep``: Angstrom.
    ``frames[].xyz`` is base64 of little-endian int16 [S, A, 3]; times ``scale`` it is nm, with the widest
    face of the first frame towards the reader. Truths of all frames lie over one another; members
    and nearest frame keep their place relative to their truth.
    """
    structures, list_of = _structures(shown)
    picked = _picked_frames(shown, len(structures))
    placed = _placed(shown, list_of, picked)
    extent = np.abs(placed).max((1, 2))
    scale = float(extent.max()) / QUANTA
    reach = [*(np.percentile(extent, FITTED, axis=0)[:2] + MARGIN), np.linalg.norm(extent.max(0))]
    quanta = np.round(placed / scale).astype("<i2")
    topology = shown.ladder.topology
    side = ~np.isin(topology.atom_names, (*BACKBONE, "OXT"))
    errors = _shown_errors(shown)
    data = {
        "system": shown.system,
        "atoms": topology.n_atoms,
        "scale": scale,
        "reach": [float(value) for value in reach],
        "bonds": _base64(topology.bonds.astype("<u4")),
        "trace": _base64(topology.ca_index.astype("<u4")),
        "bonded": [int(follows) for follows in topology.bonded],
        "side": "".join("01"[int(flag)] for flag in side),
        "residue": _base64(topology.atom_residue.astype("<u4")),
        "errorStep": ERROR_STEP,
        "structures": structures,
        "first": int(np.abs(picked - shown.pictured).argmin()),
        "frames": [
            {
                "label": str(int(shown.frames[f])),
                "notes": _notes(topology, placed[k]),
                "xyz": _base64(quanta[k]),
                **({} if errors is None else {"errors": _base64(errors[f])}),
            }
            for k, f in enumerate(picked)
        ],
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _shown_errors(shown: Shown) -> np.ndarray | None:
    """Expected errors of the members that are drawn, in steps of `ERROR_STEP`, uint8 [F, M, R]."""
    if shown.errors is None:
        return None
    steps = np.nan_to_num(ANGSTROM * shown.errors[:, :MAX_MEMBERS] / ERROR_STEP)
    return np.clip(steps.round(), 0, 255).astype(np.uint8)


def _structures(shown: Shown) -> tuple[list[dict[str, Any]], np.ndarray]:
    """What can be switched on and off, and its positions [F, S, A, 3]."""
    members = shown.members[:, :MAX_MEMBERS]
    structures = [{"label": "truth", "colour": TRUTH_COLOUR, "shown": True}]
    structures += [
        {"label": f"member {m + 1}", "colour": MEMBER_COLOURS[m], "shown": m < VISIBLE_MEMBERS}
        for m in range(members.shape[1])
    ]
    positions = [shown.truth[:, None], members]
    nearest = shown.baselines.get("nearest_training_frame")
    if nearest is not None:
        structures.append(
            {"label": "nearest training frame", "colour": NEAREST_COLOUR, "shown": False}
        )
        positions.append(nearest[:, None])
    return structures, np.concatenate(positions, axis=1)


def _picked_frames(shown: Shown, n_structures: int) -> np.ndarray:
    """Evenly spaced frames within the budget; the pictured one when there is room for one only."""
    cost = n_structures * shown.ladder.topology.n_atoms * 6
    count = int(np.clip(BUDGET // cost, 1, min(MAX_FRAMES, len(shown.frames))))
    if count == 1:
        return np.array([shown.pictured])
    return np.unique(np.linspace(0, len(shown.frames) - 1, count).round().astype(int))


def _placed(shown: Shown, structures: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """Page coordinates of the picked frames [P, S, A, 3], the truths superposed on the first."""
    truth = shown.truth[picked]
    first = np.broadcast_to(truth[0], truth.shape)
    view = View.along_axes(truth[0])
    moved = [
        superpose(structures[picked, k], first, truth, first) for k in range(structures.shape[1])
    ]
    return view.project(np.stack(moved, axis=1))


def _notes(topology: Topology, placed: np.ndarray) -> list[str]:
    """Beside each structure [S, A, 3]: what distance to the truth it has."""
    error = ANGSTROM * aligned_rmsd(placed[1:], np.broadcast_to(placed[0], placed[1:].shape))
    return [f"{topology.n_residues} residues", *(f"RMSD {value:.2f} Å" for value in error)]


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
