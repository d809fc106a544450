"""`backmap FILE`: atoms for every frame of a C-alpha trajectory, whole files or none, nothing lost."""

import logging

import mdtraj
import numpy as np
import pytest
import torch
from calpha_file import backmap, calpha_of

from hpcbackmap.backmapping import implied_campaign
from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.backmapping.files import backmap_in_memory
from hpcbackmap.backmapping.request import Request
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import (
    ConfigError,
    InputError,
    OutputError,
)
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.store.store import open_store

FRAMES = 7


def test_every_frame_gets_all_heavy_atoms_on_its_calphas(trace, truth, artifact, tmp_path):
    output = tmp_path / "atoms.dcd"
    result = backmap(trace[0], output, trace[1], artifact=artifact)
    made = mdtraj.load(str(output), top=result["topology"])
    assert result["output"] == [str(output)]
    assert (result["frames"], result["members"], result["residues"]) == (FRAMES, 1, 20)
    heavy = truth.atom_slice(truth.topology.select("element != H"))
    names = {(atom.residue.resSeq, atom.residue.name, atom.name) for atom in heavy.topology.atoms}
    assert {(a.residue.resSeq, a.residue.name, a.name) for a in made.topology.atoms} == names
    assert made.n_frames == FRAMES
    np.testing.assert_allclose(calpha_of(made), calpha_of(truth), atol=2e-5)
    assert {path.name for path in tmp_path.iterdir()} == {
        "ca.dcd", "ca.pdb", "atoms.dcd", "atoms_top.pdb", "atoms.dcd.json",
    }  # fmt: skip


def test_of_an_all_atom_trajectory_only_the_calphas_count(trace, truth, artifact, tmp_path):
    truth.save_dcd(str(tmp_path / "all.dcd"))
    truth[0].save_pdb(str(tmp_path / "all.pdb"))
    backmap(trace[0], tmp_path / "a.dcd", trace[1], artifact=artifact)
    backmap(tmp_path / "all.dcd", tmp_path / "b.dcd", tmp_path / "all.pdb", artifact=artifact)
    top = str(tmp_path / "a_top.pdb")
    a, b = (mdtraj.load(str(tmp_path / name), top=top) for name in ("a.dcd", "b.dcd"))
    np.testing.assert_allclose(a.xyz, b.xyz, atol=2e-4)


def test_members_have_a_file_each_and_follow_the_seed(trace, truth, artifact, tmp_path):
    def members(name, seed, count=2):
        result = backmap(trace[0], tmp_path / f"{name}.dcd", trace[1], count, seed, artifact)
        assert [path[-6:] for path in result["output"]] == ["_1.dcd", "_2.dcd"]
        return [mdtraj.load(path, top=result["topology"]).xyz for path in result["output"]]

    first, second = members("a", seed=3)
    chain = Chain([load_artifact(artifact)], shipped_ladder(truth), torch.device("cpu"))
    for member, made in enumerate((first, second)):
        expected = chain.run_members(calpha_of(truth), list(range(FRAMES)), [member], seed=3)[0][
            "fg"
        ]
        np.testing.assert_allclose(made, expected, atol=2e-4)
    assert np.abs(first - second).max() > 0.05
    assert np.abs(members("b", seed=4)[0] - first).max() > 0.05


def shipped_ladder(truth):
    return build_ladder(topology_from_sequence([truth.topology.to_fasta()[0]]), ["fg", "ca"])


def test_small_batches_change_nothing(trace, artifact, tmp_path, monkeypatch):
    made = []
    for size in (1, 45, 1000):
        monkeypatch.setitem(implied_campaign.BATCH_RESIDUES, "cpu", size)
        output = tmp_path / f"{size}.dcd"
        result = backmap(trace[0], output, trace[1], artifact=artifact)
        made.append(mdtraj.load(str(output), top=result["topology"]).xyz)
    for other in made[1:]:
        np.testing.assert_allclose(other, made[0], atol=2e-4)


def test_mode_draws_nothing(trace, artifact, tmp_path):
    made = []
    for seed in (1, 2):
        output = tmp_path / f"{seed}.pdb"
        result = backmap(trace[0], output, trace[1], None, seed, artifact)
        assert result["topology"] == str(output), "a PDB is its own topology"
        made.append(output.read_bytes())
    assert made[0] == made[1]


def test_times_and_steps_are_those_of_the_input(truth, artifact, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.time = 10.0 * np.arange(FRAMES) + 5
    calpha.save_xtc(str(tmp_path / "in.xtc"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    result = backmap(
        tmp_path / "in.xtc", tmp_path / "out.xtc", tmp_path / "in.pdb", artifact=artifact
    )
    made = mdtraj.load(str(tmp_path / "out.xtc"), top=result["topology"])
    np.testing.assert_allclose(made.time, calpha.time)
    assert "keeps no times" not in caplog.text, "the topology beside has none to lose"


def test_chain_break_is_told_and_not_bridged(truth, artifact, tmp_path, caplog):
    keep = [
        a.index for a in truth.topology.atoms if a.name == "CA" and a.residue.resSeq not in (9, 10)
    ]
    truth[:1].atom_slice(keep).save_pdb(str(tmp_path / "gap.pdb"))
    with caplog.at_level("WARNING"):
        backmap(tmp_path / "gap.pdb", tmp_path / "o.pdb", artifact=artifact)
    assert "chain break before A:" in caplog.text
    assert "11" in caplog.text
    made = mdtraj.load(str(tmp_path / "o.pdb"))
    numbers = [residue.resSeq for residue in made.topology.residues]
    assert numbers == [n for n in range(1, 21) if n not in (9, 10)]
    carbon = made.topology.select("resSeq 8 and name C")[0]
    nitrogen = made.topology.select("resSeq 11 and name N")[0]
    assert np.linalg.norm(made.xyz[0, carbon] - made.xyz[0, nitrogen]) > 0.2


def edited_pdb(truth, path, change):
    truth[:1].save_pdb(str(path))
    lines = [change(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(line for line in lines if line is not None) + "\n")
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda line: None if line[13:16] == "CA " and int(line[22:26]) == 5 else line,
            "residue A:GLN5 has no CA, which ca needs.*--select",
        ),
        (lambda line: line.replace("GLN A   5", "XYZ A   5"), "unknown residue A:XYZ5; rename it"),
        (lambda line: None if line[13:16] == "CA " else line, "fit no representation.*--select"),
    ],
)
def test_unfitting_residues_are_named(truth, artifact, tmp_path, change, reason):
    path = edited_pdb(truth, tmp_path / "in.pdb", change)
    with pytest.raises((InputError, ConfigError), match=reason):
        backmap(path, tmp_path / "out.pdb", artifact=artifact)
    assert [item.name for item in tmp_path.iterdir()] == ["in.pdb"]


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_the_unit_cell_is_kept(truth, artifact, tmp_path, suffix):
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.unitcell_lengths = 5.0 + 0.1 * np.arange(FRAMES)[:, None] + np.zeros(3)
    calpha.unitcell_angles = np.tile([90.0, 80.0, 70.0], (FRAMES, 1))
    calpha.save_xtc(str(tmp_path / "in.xtc"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    result = backmap(
        tmp_path / "in.xtc", tmp_path / f"out.{suffix}", tmp_path / "in.pdb", artifact=artifact
    )
    made = mdtraj.load(result["output"][0], top=result["topology"])
    expected = calpha.unitcell_vectors[[0] * FRAMES if suffix == "pdb" else slice(None)]
    np.testing.assert_allclose(made.unitcell_vectors, expected, atol=2e-4)


def test_gro_is_read_with_its_names(truth, artifact, tmp_path):
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.save_gro(str(tmp_path / "in.gro"))
    result = backmap(tmp_path / "in.gro", tmp_path / "out.dcd", artifact=artifact)
    made = mdtraj.load(str(tmp_path / "out.dcd"), top=result["topology"])
    np.testing.assert_allclose(calpha_of(made), calpha.xyz, atol=6e-4)


def test_what_is_missing_is_told_before_anything_is_read(trace, artifact, tmp_path):
    with pytest.raises(InputError, match=r"no atom names.*--top"):
        backmap(trace[0], tmp_path / "o.xtc", artifact=artifact)
    with pytest.raises(InputError, match=r"nothing.xtc: no such file"):
        backmap(tmp_path / "nothing.xtc", tmp_path / "o.xtc", artifact=artifact)
    with pytest.raises(OutputError, match=r"absent: no such folder"):
        backmap(trace[0], tmp_path / "absent" / "o.xtc", trace[1], artifact=artifact)


def test_several_files_are_one_trajectory(trace, truth, artifact, tmp_path):
    calpha = mdtraj.load(str(trace[0]), top=str(trace[1]))
    calpha[:3].save_dcd(str(tmp_path / "a.dcd"))
    calpha[3:].save_dcd(str(tmp_path / "b.dcd"))
    parts = backmap(
        [tmp_path / "a.dcd", tmp_path / "b.dcd"], tmp_path / "p.dcd", trace[1], artifact=artifact
    )
    whole = backmap(trace[0], tmp_path / "w.dcd", trace[1], artifact=artifact)
    one, other = (
        mdtraj.load(each["output"][0], top=each["topology"]).xyz for each in (parts, whole)
    )
    assert np.array_equal(one, other)


@pytest.mark.trains
def test_a_trace_that_stands_still_does_not_flicker_with_coherence(trace, tmp_path):
    still = mdtraj.load(str(trace[0]), top=str(trace[1]))[[0] * 32]
    still.save_dcd(str(tmp_path / "still.dcd"))

    def made(name, **more):
        output = tmp_path / f"{name}.dcd"
        found = backmap(tmp_path / "still.dcd", output, trace[1], **more)
        return mdtraj.load(str(output), top=found["topology"]).xyz

    coherent = made("coherent", coherence=16)
    step = [np.linalg.norm(np.diff(x, axis=0), axis=-1).mean() for x in (made("white"), coherent)]
    assert step[1] < 0.5 * step[0]
    assert np.linalg.norm(coherent[:16] - coherent[16:], axis=-1).mean() > 0.7 * step[0]
    np.testing.assert_allclose(
        made("later", coherence=16, frames="28:"), coherent[28:], atol=2e-4, rtol=0
    )
    with pytest.raises(ConfigError, match="--coherence: of members"):
        backmap(trace[0], tmp_path / "m.dcd", trace[1], None, coherence=2)
    with pytest.raises(ConfigError, match="--coherence 0: give 1 to 1000"):
        backmap(trace[0], tmp_path / "m.dcd", trace[1], coherence=0)


def test_chosen_chains_and_particles(truth, artifact, tmp_path):
    two = truth[:2].stack(truth[:2])
    two.xyz[:, truth.n_atoms :] += 3
    two.save_pdb(str(tmp_path / "two.pdb"))
    result = backmap(tmp_path / "two.pdb", tmp_path / "b.pdb", artifact=artifact, chains=("B",))
    assert (result["chains"], result["residues"]) == (1, 20)
    made = mdtraj.load(result["output"][0])
    np.testing.assert_allclose(calpha_of(made), calpha_of(truth)[:2] + 3, atol=2e-3)
    result = backmap(
        tmp_path / "two.pdb",
        tmp_path / "s.pdb",
        artifact=artifact,
        select="chainid 0 and resid < 12",
    )
    assert result["residues"] == 12
    with pytest.raises(ConfigError, match="no such chain; there are A, B"):
        backmap(tmp_path / "two.pdb", tmp_path / "x.pdb", artifact=artifact, chains=("C",))
    with pytest.raises(ConfigError, match="--select 'nonsense' is not understood"):
        backmap(tmp_path / "two.pdb", tmp_path / "x.pdb", artifact=artifact, select="nonsense")
    with pytest.raises(ConfigError, match=r"^--select '' is not understood \(.{20,140}\)$"):
        backmap(tmp_path / "two.pdb", tmp_path / "x.pdb", artifact=artifact, select="")
    with pytest.raises(ConfigError, match="--bead-center mass: of beads of several residues"):
        backmap(tmp_path / "two.pdb", tmp_path / "x.pdb", artifact=artifact, bead_center="mass")


def test_a_store_holds_all_members(trace, truth, artifact, tmp_path):
    result = backmap(trace[0], tmp_path / "o.zarr", trace[1], 2, artifact=artifact)
    made = backmap(trace[0], tmp_path / "o.dcd", trace[1], 2, artifact=artifact)
    system = open_store(tmp_path / "o.zarr").system("trajectory")
    for member, path in enumerate(made["output"]):
        rows = system.read("fg", 0, 2 * FRAMES)[member::2]
        np.testing.assert_allclose(mdtraj.load(path, top=made["topology"]).xyz, rows, atol=1e-5)
    assert system.read_observable("member", 0, 4).tolist() == [0, 1, 0, 1]
    assert "members of a frame" in result["rows"]


def test_a_store_keeps_the_boxes(truth, artifact, tmp_path):
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.unitcell_vectors = np.eye(3) * (5 + np.arange(FRAMES))[:, None, None]
    calpha.save_xtc(str(tmp_path / "in.xtc"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    backmap(tmp_path / "in.xtc", tmp_path / "o.zarr", tmp_path / "in.pdb", 2, artifact=artifact)
    rows = open_store(tmp_path / "o.zarr").system("trajectory").read_cells_at(range(2 * FRAMES))
    np.testing.assert_allclose(rows[:, 0, 0], np.repeat(5 + np.arange(FRAMES), 2), atol=1e-6)


def test_two_residues_are_refused_and_leave_nothing(truth, artifact, tmp_path):
    truth[0].atom_slice(truth.topology.select("name CA and resid < 2")).save_pdb(
        str(tmp_path / "in.pdb")
    )
    with pytest.raises(InputError, match=r"2 residue\(s\) only; 3 at least"):
        backmap(tmp_path / "in.pdb", tmp_path / "o.pdb", artifact=artifact)
    assert [path.name for path in tmp_path.iterdir()] == ["in.pdb"]


def test_an_option_that_is_refused_leaves_nothing(trace, tmp_path):
    there = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="letter 1 is 'Z'"):
        backmap(trace[0], tmp_path / "o.pdb", trace[1], sequence="A" * 80, secondary_structure="Z")
    assert sorted(tmp_path.iterdir()) == there


def test_a_trajectory_in_memory_gives_the_same_bits(trace, artifact, tmp_path):
    calpha = mdtraj.load(str(trace[0]), top=str(trace[1]))
    request = Request(members=2, seed=3, stages=(str(artifact),))
    made, summary = backmap_in_memory(calpha, request, LocalComm())
    backmap(trace[0], tmp_path / "o.zarr", trace[1], 2, 3, artifact)
    rows = open_store(tmp_path / "o.zarr").system("trajectory").read("fg", 0, 2 * FRAMES)
    for member in range(2):
        assert np.array_equal(made[member].xyz, rows[member::2])
    np.testing.assert_allclose(made[0].time, calpha.time)
    assert summary["structures"] == 2 * FRAMES


def test_a_backbone_that_is_given_is_kept(truth, artifact, tmp_path):
    backbone = truth.atom_slice(truth.topology.select("name N CA C O"))
    backbone.save_pdb(str(tmp_path / "in.pdb"))
    result = backmap(tmp_path / "in.pdb", tmp_path / "o.dcd", members=2, artifact=artifact)
    assert result["representation"] == "backbone"
    for path in result["output"]:
        made = mdtraj.load(path, top=result["topology"])
        kept = made.xyz[:, made.topology.select("name N CA C O")]
        np.testing.assert_allclose(kept, backbone.xyz, atol=1.1e-3 / 2)
    as_trace = backmap(
        tmp_path / "in.pdb", tmp_path / "ca.dcd", artifact=artifact, representation="ca"
    )
    made = mdtraj.load(as_trace["output"][0], top=as_trace["topology"])
    kept = made.xyz[:, made.topology.select("name N CA C O")]
    assert np.abs(kept - backbone.xyz).max() > 0.05
    assert as_trace["left_out"], "N, C and O are not used, and that is said"


def test_numbers_letters_and_insertion_codes_stay(truth, artifact, tmp_path):
    calpha = truth[:1].atom_slice(truth.topology.select("name CA"))
    calpha.save_pdb(str(tmp_path / "in.pdb"))
    lines = (tmp_path / "in.pdb").read_text().splitlines()
    names = [f"H{number:>4} " for number in range(-2, 8)] + [
        f"H   8{code}" for code in " ABCDEFGHI"
    ]
    atoms = iter(names)
    lines = [
        line[:21] + next(atoms) + line[27:] if line.startswith("ATOM") else line for line in lines
    ]
    (tmp_path / "in.pdb").write_text("\n".join(lines) + "\n")
    backmap(tmp_path / "in.pdb", tmp_path / "o.pdb", artifact=artifact)
    found = [
        line[21:27]
        for line in (tmp_path / "o.pdb").read_text().splitlines()
        if line.startswith("ATOM") and line[13:16] == "CA "
    ]
    assert found == names


def test_what_is_left_out_is_named_or_refused(truth, artifact, tmp_path):
    calpha = truth[:1].atom_slice(truth.topology.select("name CA"))
    calpha.save_pdb(str(tmp_path / "in.pdb"))
    lines = (tmp_path / "in.pdb").read_text().splitlines()
    base = "ATOM     99  P    DA D   1      50.000  50.000  50.000  1.00  0.00           P"
    (tmp_path / "in.pdb").write_text("\n".join([*lines[:-1], base, lines[-1]]) + "\n")
    result = backmap(tmp_path / "in.pdb", tmp_path / "o.pdb", artifact=artifact)
    assert result["left_out"] == {"DNA DA": 1}
    assert result["residues"] == 20
    with pytest.raises(InputError, match="--strict: 1 DNA DA would be left out"):
        backmap(tmp_path / "in.pdb", tmp_path / "s.pdb", artifact=artifact, strict=True)


def test_a_sequence_names_residues_that_are_not_named(truth, artifact, tmp_path):
    calpha = truth[:2].atom_slice(truth.topology.select("name CA"))
    letters = truth.topology.to_fasta()[0]
    for residue in calpha.topology.residues:
        residue.name = "BEA"
    calpha.save_pdb(str(tmp_path / "in.pdb"))
    (tmp_path / "in.fasta").write_text(f">chain\n{letters[:10]}\n{letters[10:]}\n")
    result = backmap(
        tmp_path / "in.pdb",
        tmp_path / "o.pdb",
        artifact=artifact,
        sequence=str(tmp_path / "in.fasta"),
    )
    assert mdtraj.load(result["output"][0]).topology.to_fasta()[0] == letters
    with pytest.raises(InputError, match=r"unknown residue A:BEA1; .*--sequence"):
        backmap(tmp_path / "in.pdb", tmp_path / "x.pdb", artifact=artifact)
    with pytest.raises(ConfigError, match=r"--sequence has 3 residues, .*in.pdb has 20"):
        backmap(tmp_path / "in.pdb", tmp_path / "x.pdb", artifact=artifact, sequence="AGE")


def test_a_sequence_is_enough_for_one_bead_per_residue(trace, truth, artifact, tmp_path):
    letters = "".join(residue.code for residue in truth.topology.residues)
    two = np.concatenate([calpha_of(truth), calpha_of(truth) + [4, 0, 0]], axis=1)
    pair = topology_from_sequence([letters, letters]).to_mdtraj("ca")
    mdtraj.Trajectory(two, pair).save_dcd(str(tmp_path / "two.dcd"))
    result = backmap(tmp_path / "two.dcd", tmp_path / "a.pdb", artifact=artifact, sequence=letters)
    assert (result["chains"], result["residues"], result["frames"]) == (2, 40, FRAMES)
    with pytest.raises(InputError, match="40 particles, --sequence has 19"):
        backmap(tmp_path / "two.dcd", tmp_path / "b.pdb", artifact=artifact, sequence=letters[1:])
    with pytest.raises(InputError, match="--sequence"):
        backmap(tmp_path / "two.dcd", tmp_path / "b.pdb", artifact=artifact)


@pytest.mark.parametrize("suffix", ["pdb", "xtc"])
def test_lengths_counted_in_bonds_are_called_so(truth, artifact, tmp_path, suffix):
    """A model whose bonds are 1: in Angstrom ten times too near, in nm as far as nothing is."""
    trace = truth.atom_slice(truth.topology.select("name CA"))
    trace[0].save_pdb(str(tmp_path / "top.pdb"))
    trace.xyz = trace.xyz / 0.38 * (0.1 if suffix == "pdb" else 1)
    trace[0].save(str(tmp_path / f"a.{suffix}"))
    options = {"top": str(tmp_path / "top.pdb"), "artifact": artifact}
    with pytest.raises(InputError, match=r"reduced units\); say --unit 0.38"):
        backmap(tmp_path / f"a.{suffix}", tmp_path / "o.pdb", **options)
    result = backmap(tmp_path / f"a.{suffix}", tmp_path / "o.pdb", unit="0.38", **options)
    assert result["representation"] == "ca"


def test_the_unit_is_judged_by_the_protein_alone(truth, artifact, tmp_path):
    """Water and lipids lie anywhere; W beside residues with names of three letters is water."""
    places = np.random.default_rng(0).uniform(0, 90, (60, 3))
    lines = edited_pdb(truth, tmp_path / "a.pdb", lambda line: line).read_text().splitlines()
    lines = [line for line in lines if line.startswith("ATOM")]
    for number, (x, y, z) in enumerate(places, start=100):
        lines.append(f"ATOM  {number:5d}  W     W  {number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}")
    (tmp_path / "a.pdb").write_text("\n".join(lines) + "\n")
    result = backmap(tmp_path / "a.pdb", tmp_path / "o.pdb", artifact=artifact)
    assert result["left_out"]["water W"] == 60
    assert result["residues"] == 20
