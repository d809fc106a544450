"""The adenylate kinase campaign on its real trajectories: four paths train, the fifth is backmapped."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY, succeed

CAMPAIGN = REPOSITORY / "examples" / "adk" / "campaign.yaml"
DATA = Path(os.environ.get("HPCBACKMAP_DATA", REPOSITORY.parent / "shared" / "data"))
PATHS = DATA / "adenylate_kinase"
HELD_OUT_FRAMES = 95
SMALL = [
    "backmap.members=2",
    "evaluate.bootstrap=20",
    "stages.ucg10-ca.model.width=32",
    *(
        f"stages.{stage}.train.{setting}"
        for stage in ("ca-fg", "ucg10-ca")
        for setting in ("max_steps=150", "validate_every=50")
    ),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PATHS.is_dir(), reason=f"no adenylate kinase trajectories in {PATHS}"),
]


def test_the_fifth_path_is_backmapped_better_than_by_bead_centres(tmp_path):
    shutil.copy(CAMPAIGN, tmp_path)
    (system,) = yaml.safe_load(CAMPAIGN.read_text())["systems"]
    system["topology"] = str(PATHS / system["topology"])
    system["trajectories"] = [str(PATHS / name) for name in system["trajectories"]]
    overrides = [f"systems={json.dumps([system])}", *SMALL]
    for command in (
        ["ingest"],
        ["train", "--stage", "ca-fg"],
        ["train", "--stage", "ucg10-ca"],
        ["backmap"],
        ["evaluate"],
    ):
        arguments = [tmp_path / "campaign.yaml", *command[1:], *overrides]
        succeed(command[0], *arguments, timeout=1200)

    record = json.loads((tmp_path / "work" / "metrics.json").read_text())
    assert record["n_frames"] == {"adk": HELD_OUT_FRAMES}
    rows = {row["row"]: row["metrics"] for row in record["rows"]}
    ours, centres = (
        rows[row]["rmsd_aligned_angstrom"]["value"] for row in ("model", "bead_centre")
    )
    assert ours < 0.8 * centres
    assert rows["model"]["d_residues_percent"]["value"] == 0
