"""The proteins of the comparison, and three ladders for each from the same beads.

One step: ``[fg, ucgN]``; two: ``[fg, ca, ucgN]``; three: ``[fg, ca, ucgM, ucgN]``. A bead is the mean of the
C-alpha atoms of a stretch of residues in all three, so the input frames are the same numbers. ``ucgM`` cuts
the stretches into equal pieces; ``ucgN`` weighs its pieces by their residues (a mapping file), which keeps
the mean.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from hpcbackmap.config.campaign import Campaign, StageConfig
from hpcbackmap.config.load import resolved_yaml

__all__ = [
    "MEMBERS",
    "PROTEINS",
    "SEED",
    "STEPS",
    "Protein",
    "make_campaign",
    "write_bead_mapping",
    "write_campaign",
]

STEPS = (1, 2, 3)
BATCH = {"cgvae": 8, "genzprot": 2}
"""Frames a step; a step of the finest stage costs about ten times as much a frame."""
BY_HEART_RATE = 2e-3
"""From shipped weights, as of `by_heart.py`."""
NEVER = 10**9
MEMBERS = 5
SEED = 1


@dataclass(frozen=True)
class Protein:
    """files, topology: below the data folder. beads: N to the M of three steps. split: of `SplitConfig`.

    ordered: the frames follow one another, so that a bootstrap keeps neighbours together.
    """

    name: str
    residues: int
    files: tuple[str, ...]
    topology: str | None
    beads: dict[int, int]
    split: dict = field(default_factory=lambda: {"by": "time", "validation": 0.1, "test": 0.2})
    ordered: bool = True


PATHS = ("dims_a", "dims_b", "dims_c", "dims_d", "tmd")
ADK = tuple(f"adenylate_kinase/adk_{name}.xtc" for name in PATHS)
PROTEINS = {
    protein.name: protein
    for protein in (
        Protein(
            "ped00151",
            46,
            ("ped00151/ped00151.pdb.gz",),
            None,
            {5: 20, 10: 20, 20: 40},
            ordered=False,
        ),
        Protein(
            "adk",
            214,
            ADK,
            "adenylate_kinase/adk_dims_a_top.pdb",
            {5: 20, 10: 50, 20: 100, 50: 100},
            {"by": "source", "test_names": ["adk_dims_d"], "validation": 0},
        ),
        Protein(
            "p38", 351, ("p38/p38_md.xtc",), "p38/p38_md_top.pdb", {5: 20, 10: 50, 20: 100, 50: 100}
        ),
    )
}


def make_campaign(
    protein: Protein,
    data: Path,
    folder: Path,
    beads: int,
    steps: int,
    seconds: float,
    shipped: bool = False,
) -> Campaign:
    """Campaign of one ladder in ``folder``; ``seconds`` of training, an equal share for every stage.

    shipped: the heavy-atom stage begins with the shipped weights and learns an embedding of every residue.
    beads: N, one of ``protein.beads``, for which a mapping file is written beside the campaign.
    """
    ladder = {
        1: ["fg", f"ucg:{beads}"],
        2: ["fg", "ca", f"ucg:{beads}"],
        3: ["fg", "ca", f"ucg:{protein.beads[beads]}", f"file:{folder / f'ucg{beads}.yaml'}"],
    }[steps]
    if steps == 3:
        write_bead_mapping(
            folder / f"ucg{beads}.yaml", protein.residues, protein.beads[beads], beads
        )
    system = {
        "name": protein.name,
        "trajectories": [str(data / name) for name in protein.files],
        "topology": protein.topology and str(data / protein.topology),
    }
    campaign = Campaign(
        name=f"{protein.name}-{beads}-{steps}",
        workdir=str(folder),
        ladder=ladder,
        systems=[system],
        split=protein.split,
        backmap={"members": MEMBERS, "seed": SEED},
    )
    stages = {rung: _stage(rung, seconds / steps, shipped) for rung in campaign.rungs()}
    return campaign.model_copy(update={"stages": stages})


def _stage(rung: str, seconds: float, shipped: bool) -> StageConfig:
    kind = "genzprot" if rung == "ca-fg" else "cgvae"
    by_heart = shipped and kind == "genzprot"
    train = {
        "max_minutes": seconds / 60,
        "max_steps": NEVER,
        "batch_size": BATCH[kind],
        "warmup_steps": 10,
        "validate_every": 100,
        "checkpoint_every": NEVER,
    }
    if by_heart:
        train |= {"init_from": "shipped", "learning_rate": BY_HEART_RATE, "batch_size": 4}
    model = {"kind": kind, "per_system": True} if by_heart else {"kind": kind}
    return StageConfig(model=model, train=train)


def write_bead_mapping(path: Path, residues: int, pieces: int, beads: int) -> None:
    """Mapping file from ``pieces`` equal stretches of a chain to ``beads``, each piece by its residues.

    Raises ValueError if a piece would lie in two beads.
    """
    residue = np.arange(residues)
    piece, bead = residue * pieces // residues, residue * beads // residues
    if len({*zip(piece.tolist(), bead.tolist(), strict=True)}) != pieces:
        raise ValueError(f"{pieces} pieces of {residues} residues do not nest in {beads} beads")
    first = np.searchsorted(piece, np.arange(pieces))
    record = {"bead": bead[first].tolist(), "weight": np.bincount(piece).astype(float).tolist()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(record))


def write_campaign(campaign: Campaign) -> Path:
    """``campaign.yaml`` in the campaign's own folder."""
    path = campaign.path("campaign.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(resolved_yaml(campaign))
    return path
