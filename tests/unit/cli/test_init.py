"""A campaign written for files of the user: it loads, says what the files hold, and runs as it stands."""

import mdtraj
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from hpcbackmap.cli.app import app
from hpcbackmap.config.load import load_campaign
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError


@pytest.fixture
def example(example_run, tmp_path):
    """The example's ensemble, and a folder to write in."""
    whole = example_run
    whole[:3].save_pdb(str(tmp_path / "few frames.pdb"))
    trace = whole[:4].atom_slice(whole.topology.select("name CA"))
    trace.save_xtc(str(tmp_path / "trace.xtc"))
    trace[0].save_pdb(str(tmp_path / "trace.pdb"))
    return tmp_path


def run(*words) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words) -> type:
    result = CliRunner().invoke(app, [str(word) for word in words])
    codes = {kind.exit_code: kind for kind in (ConfigError, InputError, OutputError)}
    return codes[result.exit_code]


def test_an_ensemble_gets_stages_that_learn_its_protein(example, example_dir):
    output = example / "campaign.yaml"
    top = example_dir / "trpcage_top.pdb"
    said = run("init", example_dir / "trpcage.xtc", "--top", top, "-o", output)
    campaign = load_campaign(output)
    assert campaign.resolutions() == ["fg", "ca", "ucg5"]
    assert set(campaign.stages) == set(campaign.rungs())
    heavy = campaign.stages["ca-fg"]
    assert heavy.model.per_system
    assert heavy.train.init_from.endswith("weights/ca-fg")
    for name in campaign.stages:
        assert f"hpcbackmap train {output} --stage {name}" in said


def test_a_peptide_of_seven_residues_gets_three_beads(example, example_run):
    """Five, the least otherwise, would be more than it has residues for."""
    short = example_run.atom_slice(example_run.topology.select("resid 0 to 6"))
    short.save_pdb(str(example / "short.pdb"))
    output = example / "campaign.yaml"
    run("init", example / "short.pdb", "-o", output)
    assert load_campaign(output).resolutions() == ["fg", "ca", "ucg3"]


@pytest.mark.parametrize(
    ("files", "frames"), [(["few frames.pdb"], 2), (["trace.xtc", "--top", "trace.pdb"], 4)]
)
def test_what_cannot_be_learned_from_runs_with_the_shipped_stage(
    example, files, frames, monkeypatch
):
    monkeypatch.chdir(example)
    run("init", *files)
    assert "artifact" in yaml.safe_load((example / "campaign.yaml").read_text())["stages"]["ca-fg"]
    run("ingest", "campaign.yaml")
    said = run("backmap", "campaign.yaml", "--members", "1", "--json")
    assert f'"frames": {frames}' in said


@pytest.mark.trains
def test_beads_of_several_residues_run_with_the_shipped_stages(example, monkeypatch):
    """Their runs are uneven, and they are mass centres."""
    monkeypatch.chdir(example)
    trace = mdtraj.load("trace.xtc", top="trace.pdb")
    runs = [4, 5, 3, 4, 4]
    ends = np.cumsum(runs)
    beads = np.stack([trace.xyz[:, b - n : b].mean(1) for b, n in zip(ends, runs, strict=True)], 1)
    top = mdtraj.Topology()
    chain = top.add_chain()
    for _ in runs:
        top.add_atom("B1", None, top.add_residue("BEA", chain))
    made = mdtraj.Trajectory(beads, top)
    made.save_xtc("beads.xtc")
    made[0].save_pdb("beads.pdb")
    sequence = trace.topology.to_fasta()[0]
    options = ["--top", "beads.pdb", "--sequence", sequence]
    run("init", "beads.xtc", *options, "--segments", "4,5,3,4,4", "--bead-center", "mass")
    campaign = load_campaign("campaign.yaml")
    assert campaign.ladder[2] == "ucg:4,5,3,4,4:mass"
    assert all(stage.artifact for stage in campaign.stages.values())
    run("ingest", "campaign.yaml")
    assert '"frames": 4' in run("backmap", "campaign.yaml", "--members", "1", "--json")
    alone = ["init", "beads.xtc", "--top", "beads.pdb", "--force"]
    assert refused(*alone, "--segments", "4") is ConfigError
    assert refused("init", "beads.xtc", *options, "--segments", "9,9", "--force") is InputError


def test_files_that_exist_stay(example, monkeypatch):
    monkeypatch.chdir(example)
    (example / "campaign.yaml").write_text("mine")
    assert refused("init", "few frames.pdb") is OutputError
    assert (example / "campaign.yaml").read_text() == "mine"
    run("init", "few frames.pdb", "--force")
    run("init", "--site")
    assert "module load" in (example / "site.sh").read_text()
    assert refused("init", "--site") is OutputError


def test_what_it_cannot_do_is_said(example, monkeypatch):
    monkeypatch.chdir(example)
    assert refused("init") is ConfigError
    assert refused("init", "nowhere.pdb") is InputError
    assert refused("init", "trace.xtc", "--top", "trace.pdb", "--beads", "5") is ConfigError
    assert not (example / "campaign.yaml").exists()
