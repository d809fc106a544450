"""Two files that cannot be compared, through the command: one line that names what is wrong."""

import gzip
import json
import subprocess
import sys

import mdtraj
import numpy as np
import pytest
from judged_campaign import load_example, make_campaign

from hpcbackmap.cli.inspection import describe_campaign
from hpcbackmap.config.campaign import SplitConfig
from hpcbackmap.evaluation.campaign import evaluate_files
from hpcbackmap.evaluation.record import find_row, five_figures
from hpcbackmap.report.report import write_report
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.store.split import split_systems


@pytest.fixture(scope="module")
def folder(tmp_path_factory, example_dir):
    """truth as .pdb, .pdb.gz, .xtc and .dcd."""
    folder = tmp_path_factory.mktemp("input")
    topology, positions = load_example(example_dir, frames=5)
    trajectory = mdtraj.Trajectory(positions, topology.to_mdtraj())
    for name in ("truth.pdb", "truth.pdb.gz", "truth.xtc", "truth.dcd"):
        trajectory.save(str(folder / name))
    return folder


@pytest.fixture(scope="module")
def trajectory(folder):
    return mdtraj.load(str(folder / "truth.pdb"))


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "hpcbackmap", "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_standard_output_of_a_dcd_is_json_alone(folder):
    result = command(
        "--truth", folder / "truth.pdb", "--generated", folder / "truth.dcd",
        "--generated-top", folder / "truth.pdb", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    model = find_row(json.loads(result.stdout)["rows"], "model")["metrics"]
    assert model["rmsd_angstrom"]["value"] < 0.01
    assert model["rmsd_angstrom"]["unit"] == "Å"
    assert model["rmsd_angstrom"]["n"] == 5


def test_an_error_is_one_line_without_a_traceback(folder):
    (folder / "empty.pdb").write_text("")
    result = command("--truth", folder / "truth.pdb", "--generated", folder / "empty.pdb")
    assert result.returncode == InputError.exit_code
    assert "empty.pdb" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("side", "option"), [("truth", "--truth-top"), ("generated", "--generated-top")]
)
def test_a_file_without_names_asks_for_its_topology(folder, side, option):
    files = {"truth": folder / "truth.pdb", "generated": folder / "truth.pdb"}
    files[side] = folder / "truth.xtc"
    with pytest.raises(InputError, match=rf"truth\.xtc: has no atom names; .* {option}"):
        evaluate_files(**files)


def test_empty_and_truncated_files_are_named(folder):
    whole = (folder / "truth.pdb.gz").read_bytes()
    (folder / "cut.pdb.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pdb.gz").write_bytes(gzip.compress(b""))
    (folder / "nothing.pdb").write_text("END\n")
    (folder / "noise.pdb").write_bytes(b"\x00\xff" * 500)
    (folder / "half.xtc").write_bytes((folder / "truth.xtc").read_bytes()[:700])
    top = folder / "truth.pdb"
    for name in ("cut.pdb.gz", "empty.pdb.gz", "nothing.pdb", "noise.pdb", "half.xtc"):
        with pytest.raises(InputError, match=name):
            evaluate_files(top, folder / name, generated_top=top if "xtc" in name else None)


def test_the_first_difference_of_sequences_is_named(folder, trajectory):
    without = trajectory.atom_slice(trajectory.topology.select("not resid 5"))
    without.save(str(folder / "without.pdb"))
    with pytest.raises(
        InputError, match=r"has 19 residues, .* has 20; first difference at residue 6: A:LEU7"
    ):
        evaluate_files(folder / "truth.pdb", folder / "without.pdb")


def test_missing_atoms_are_named(folder, trajectory):
    lacking = trajectory.atom_slice(trajectory.topology.select("not (resid 3 and name CD1)"))
    lacking.save(str(folder / "lacking.pdb"))
    with pytest.raises(
        InputError, match=r"lacking\.pdb: residue ILE4 .* lacks heavy atom\(s\) CD1"
    ):
        evaluate_files(folder / "truth.pdb", folder / "lacking.pdb")
    trace = trajectory.atom_slice(trajectory.topology.select("name CA"))
    trace.save(str(folder / "trace.pdb"))
    with pytest.raises(InputError, match="C-alpha atoms only"):
        evaluate_files(folder / "truth.pdb", folder / "trace.pdb")
    water = mdtraj.Topology()
    water.add_atom("O", mdtraj.element.oxygen, water.add_residue("HOH", water.add_chain()))
    mdtraj.Trajectory(np.zeros((1, 1, 3)), water).save(str(folder / "water.pdb"))
    with pytest.raises(InputError, match="no protein residues"):
        evaluate_files(folder / "truth.pdb", folder / "water.pdb")


def altered(trajectory, path, change):
    copy = trajectory[:]
    copy.xyz = copy.xyz.copy()
    change(copy.xyz, copy.topology)
    copy.save(str(path))
    return path


def scrambled(xyz, topology):
    xyz[:] = xyz[:, np.random.default_rng(0).permutation(topology.n_atoms)]


def cut_later(xyz, topology):
    xyz[3, topology.select("resid > 9 or (resid 9 and name C O)")] += 6


def cut_between_residues(xyz, topology):
    xyz[0, topology.select("resid > 9")] += 6


@pytest.mark.parametrize(
    ("change", "frame"), [(scrambled, 0), (cut_later, 3), (cut_between_residues, 0)]
)
def test_an_impossible_truth_is_no_measure(folder, trajectory, tmp_path, change, frame):
    path = altered(trajectory, tmp_path / "bad.xtc", change)
    reason = rf"bad\.xtc: frame {frame}: .* bonded, but .* nm apart; .* periodic box"
    with pytest.raises(InputError, match=reason):
        evaluate_files(path, folder / "truth.pdb", truth_top=folder / "truth.pdb")


def test_poor_structures_are_judged_unless_they_are_not_numbers(folder, trajectory, tmp_path):
    def not_numbers(xyz, topology):
        xyz[4, 7] = np.nan

    made = altered(trajectory, tmp_path / "made.dcd", cut_later)
    top = folder / "truth.pdb"
    figures = five_figures(evaluate_files(top, made, generated_top=top))
    lines = [str(figure) for figure in figures]
    assert all("made.dcd" in line for line in lines)
    assert any("truth" in line for line in lines)
    assert not any(word in "".join(lines) for word in ("ours", "nearest", "bead centre"))
    altered(trajectory, made, not_numbers)
    with pytest.raises(InputError, match=r"made\.dcd: frame 4 has coordinates that are not numb"):
        evaluate_files(top, made, generated_top=top)


def test_many_frames_are_read_in_pieces_of_any_length(folder, trajectory, monkeypatch):
    from hpcbackmap.evaluation import files
    from hpcbackmap.trajectories import reader as reading

    expected = evaluate_files(
        folder / "truth.pdb", folder / "truth.xtc", None, folder / "truth.pdb"
    )
    monkeypatch.setattr(files, "BLOCK_BYTES", 12 * trajectory.n_atoms * 2)
    monkeypatch.setattr(reading, "PIECE_BYTES", 12 * trajectory.n_atoms * 3)
    found = evaluate_files(folder / "truth.pdb", folder / "truth.xtc", None, folder / "truth.pdb")
    for first, second in zip(expected["rows"], found["rows"], strict=True):
        for name, metric in first["metrics"].items():
            assert second["metrics"][name]["value"] == pytest.approx(metric["value"]), name


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"rows": []}', "null"])
def test_a_record_of_something_else_is_no_evaluation(tmp_path, example_dir, content):
    topology, positions = load_example(example_dir)
    campaign = make_campaign(tmp_path, topology, positions, lambda truth, member: truth)
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.json: .*evaluate the campaign again"):
        write_report(campaign, tmp_path / "report.html")
    assert describe_campaign(campaign)["done"]["evaluate"] is False


class OneFile:
    name, n_frames, sources = "p38", 100, (("md", 0, 100),)


def test_a_split_by_source_needs_a_source_to_hold_out():
    with pytest.raises(ConfigError, match=r"split: .*p38.*one file.*by: time"):
        split_systems([OneFile()], SplitConfig(by="source"))
    nothing_held = SplitConfig(by="source", test=0, validation=0)
    assert split_systems([OneFile()], nothing_held)["test"] == []
