"""`backmap FILE --reference`: through the command, any number of shards, and what is refused."""

import json

import mdtraj
import numpy as np
import pytest
from beads_of_example import BEADS, beads_of_example
from typer.testing import CliRunner

import hpcbackmap
from hpcbackmap.backmapping import files, implied_campaign
from hpcbackmap.backmapping.reference import read_reference
from hpcbackmap.cli.app import app
from hpcbackmap.runtime.errors import InputError, OutputError


@pytest.fixture
def case(tmp_path, example_dir):
    """Beads of four residues of the example, its sequence, and its first frame as the reference."""
    beads, sequence, example, calpha = beads_of_example(example_dir, 3)
    example[0].save_pdb(str(tmp_path / "known.pdb"))
    return beads, sequence, tmp_path / "known.pdb", calpha


def calpha_of(made: mdtraj.Trajectory) -> np.ndarray:
    return made.xyz[:, made.topology.select("name CA")]


@pytest.mark.trains
def test_a_reference_brings_atoms_near_the_truth_in_any_number_of_shards(case, monkeypatch):
    beads, sequence, known, truth = case
    (with_it,) = hpcbackmap.backmap(beads, mode=True, sequence=sequence, reference=known)
    (without,) = hpcbackmap.backmap(beads, mode=True, sequence=sequence)
    near, far = (np.linalg.norm(calpha_of(x) - truth, axis=-1) for x in (with_it, without))
    assert near.mean() < 0.08 < far.mean(), "nm"
    assert near[0].mean() < 0.02, "the first frame is the reference"
    assert np.abs(calpha_of(with_it).reshape(3, BEADS, 4, 3).mean(2) - beads.xyz).max() < 1e-5
    monkeypatch.setattr(implied_campaign, "_shard", lambda *_: 1)
    monkeypatch.setattr(implied_campaign, "_batch", lambda *_: 1)
    (in_shards,) = hpcbackmap.backmap(beads, mode=True, sequence=sequence, reference=known)
    (last,) = hpcbackmap.backmap(beads, mode=True, sequence=sequence, reference=known, frames="2:3")
    assert np.array_equal(in_shards.xyz[2], last.xyz[0]), "a frame depends on itself alone"
    assert np.abs(in_shards.xyz - with_it.xyz).max() < 1e-4, "nm"


@pytest.mark.trains
def test_the_command_says_where_the_reference_is_of_no_use(case, tmp_path):
    beads, sequence, known, _ = case
    beads.save_xtc(str(tmp_path / "beads.xtc"))
    beads[0].save_pdb(str(tmp_path / "beads.pdb"))
    output = tmp_path / "atoms.pdb"
    wrong = mdtraj.load(str(known))
    wrong = wrong.atom_slice(wrong.topology.select("name CA"))
    wrong.xyz[0] = wrong.xyz[0, [*range(14, 20), *range(14)]]
    wrong.xyz[0, :10] = wrong.xyz[0, :10] @ np.diag([1, 1, -1.0]) + [0.3, 0, 0]
    wrong.save_pdb(str(tmp_path / "wrong.pdb"))
    command = ["backmap", str(tmp_path / "beads.xtc"), "--top", str(tmp_path / "beads.pdb")]
    command += ["--sequence", sequence, "-o", str(output), "--members", "2", "--reference"]
    result = CliRunner().invoke(app, [*command, str(known), "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "atoms.pdb.json").read_text())
    assert record["run"]["reference_set_aside_frames"] == 0
    assert record["plan"]["reference"] == read_reference(str(known)).digest
    result = CliRunner().invoke(app, [*command, str(tmp_path / "wrong.pdb"), "--json", "--force"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "atoms.pdb.json").read_text())
    assert record["run"]["reference_set_aside_frames"] == 3


def test_another_reference_is_another_plan(case, tmp_path, monkeypatch):
    beads, sequence, known, _ = case
    options = {"sequence": sequence, "output": tmp_path / "atoms.xtc", "mode": True}
    monkeypatch.setattr(files, "_deliver", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        hpcbackmap.backmap(beads, reference=known, **options)
    with pytest.raises(OutputError, match="had another reference"):
        hpcbackmap.backmap(beads, **options)


def test_what_is_no_reference_of_the_protein_is_refused(case, tmp_path):
    beads, sequence, known, _ = case
    with pytest.raises(InputError, match=r"known.pdb: no reference of this protein: \d+ %"):
        hpcbackmap.backmap(beads, sequence="GGGGSGGGGSWWYYCGGGGS", reference=known)
    with pytest.raises(InputError, match=r"nowhere.pdb: no such file"):
        hpcbackmap.backmap(beads, sequence=sequence, reference=tmp_path / "nowhere.pdb")
    with pytest.raises(InputError, match="here there is none: leave it out"):
        hpcbackmap.backmap(str(known), reference=known)


def test_a_mirror_image_is_no_reference(data_dir, tmp_path):
    known = mdtraj.load(data_dir / "lambda_lysozyme" / "1am7_md_top.pdb")
    known.xyz[..., 2] *= -1
    known.save_pdb(str(tmp_path / "mirror.pdb"))
    with pytest.raises(InputError, match=r"mirror.pdb: no reference: .* wind to the left"):
        read_reference(str(tmp_path / "mirror.pdb"))
