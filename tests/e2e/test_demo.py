"""`hpcbackmap demo`, with a campaign that takes seconds in the place of the example's."""

import shutil
from pathlib import Path

import pytest
import yaml
from commands import EXAMPLE, succeed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    import mdtraj

    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(EXAMPLE / "trpcage_top.pdb", folder)
    frames = mdtraj.load(EXAMPLE / "trpcage.xtc", top=EXAMPLE / "trpcage_top.pdb")[::5]
    frames.save(folder / "trpcage.xtc")
    campaign = yaml.safe_load((EXAMPLE / "campaign.yaml").read_text())
    campaign["stages"]["ucg5-ca"]["model"] |= {"width": 16, "layers": 1}
    for stage in campaign["stages"].values():
        stage["train"] |= {"max_minutes": 0.05, "log_every": 1}
    (folder / "campaign.yaml").write_text(yaml.safe_dump(campaign))
    return folder


def test_the_demo_runs_to_its_end_and_then_has_nothing_to_do(folder):
    first = succeed("demo", "--output", folder, timeout=500)
    steps = [line.split("]")[0] for line in first.stdout.splitlines() if line.startswith("[")]
    assert steps == [f"[{number}/6" for number in range(1, 7)]
    for stage in ("ca-fg", "ucg5-ca"):
        assert any(line.split()[:2] == [stage, "step"] for line in first.stdout.splitlines())
        assert "deepspeed.launcher" in (folder / "logs" / f"{stage}.log").read_text()
    assert "bead centre" in first.stdout
    assert "structures.part" not in first.stdout + first.stderr, "a folder that is not there"
    assert (folder / "work" / "report.html").is_file()
    names = [path.name for path in (folder / "structures").iterdir()]
    for end in ("-members.pdb", "-members.pdb.rows.csv", "-truth.pdb"):
        assert sum(name.endswith(end) for name in names) == 3, names

    again = succeed("demo", "--output", folder)
    assert again.stdout.startswith("nothing to do")
