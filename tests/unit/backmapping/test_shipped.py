"""Backmapping a trajectory file with one stage, no campaign."""

import os
import signal

import mdtraj
import numpy as np
import pytest

from hpcbackmap.backmapping import shipped
from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime import shipped_weights
from hpcbackmap.runtime.errors import ConfigError, InputError, Interrupted, OutputError
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.trajectories.writer import TrajectoryWriter

FRAMES = 7


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An untrained stage: what it draws is poor, but it draws."""
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, neighbours=4), [ladder], 0)
    return save_artifact(stage, tmp_path_factory.mktemp("stage") / "ca-fg", {})


@pytest.fixture(scope="module")
def truth(example_dir):
    """The first frames of the example: all atoms, hydrogens included where the file has them."""
    return mdtraj.load(str(example_dir / "trpcage.xtc"), top=str(example_dir / "trpcage_top.pdb"))[
        :FRAMES
    ]


@pytest.fixture
def trace(truth, tmp_path):
    """A C-alpha trajectory (DCD, which keeps float32) and its topology."""
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.save_dcd(str(tmp_path / "ca.dcd"))
    calpha[0].save_pdb(str(tmp_path / "ca.pdb"))
    return tmp_path / "ca.dcd", tmp_path / "ca.pdb"


def calpha_of(trajectory):
    return trajectory.xyz[:, trajectory.topology.select("name CA")]


def test_every_frame_gets_all_heavy_atoms_on_its_calphas(trace, truth, artifact, tmp_path):
    output = tmp_path / "atoms.dcd"
    result = shipped.backmap_trajectory(trace[0], output, trace[1], artifact=artifact)
    made = mdtraj.load(str(output), top=result["topology"])
    assert result["output"] == [str(output)]
    assert (result["frames"], result["members"], result["residues"]) == (FRAMES, 1, 20)
    heavy = truth.atom_slice(truth.topology.select("element != H"))
    names = {(atom.residue.resSeq, atom.residue.name, atom.name) for atom in heavy.topology.atoms}
    assert {(a.residue.resSeq, a.residue.name, a.name) for a in made.topology.atoms} == names
    assert made.n_frames == FRAMES
    np.testing.assert_allclose(calpha_of(made), calpha_of(truth), atol=2e-5)
    assert {path.name for path in tmp_path.iterdir()} == {
        "ca.dcd", "ca.pdb", "atoms.dcd", "atoms_top.pdb",
    }  # fmt: skip


def test_of_an_all_atom_trajectory_only_the_calphas_count(trace, truth, artifact, tmp_path):
    truth.save_dcd(str(tmp_path / "all.dcd"))
    truth[0].save_pdb(str(tmp_path / "all.pdb"))
    shipped.backmap_trajectory(trace[0], tmp_path / "a.dcd", trace[1], artifact=artifact)
    shipped.backmap_trajectory(
        tmp_path / "all.dcd", tmp_path / "b.dcd", tmp_path / "all.pdb", artifact=artifact
    )
    top = str(tmp_path / "a_top.pdb")
    a, b = (mdtraj.load(str(tmp_path / name), top=top) for name in ("a.dcd", "b.dcd"))
    np.testing.assert_allclose(a.xyz, b.xyz, atol=2e-4)


def test_members_have_a_file_each_and_follow_the_seed(trace, truth, artifact, tmp_path):
    def members(name, seed, count=2):
        result = shipped.backmap_trajectory(
            trace[0], tmp_path / f"{name}.dcd", trace[1], count, seed, artifact
        )
        assert [path[-6:] for path in result["output"]] == ["_1.dcd", "_2.dcd"]
        return [mdtraj.load(path, top=result["topology"]).xyz for path in result["output"]]

    first, second = members("a", seed=3)
    chain = Chain([load_artifact(artifact)], shipped_ladder(truth), shipped.torch.device("cpu"))
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
        monkeypatch.setitem(shipped.BATCH_RESIDUES, "cpu", size)
        output = tmp_path / f"{size}.dcd"
        result = shipped.backmap_trajectory(trace[0], output, trace[1], artifact=artifact)
        made.append(mdtraj.load(str(output), top=result["topology"]).xyz)
    for other in made[1:]:
        np.testing.assert_allclose(other, made[0], atol=2e-4)


def test_mode_draws_nothing(trace, artifact, tmp_path):
    made = []
    for seed in (1, 2):
        output = tmp_path / f"{seed}.pdb"
        result = shipped.backmap_trajectory(trace[0], output, trace[1], None, seed, artifact)
        assert result["topology"] == str(output), "a PDB is its own topology"
        made.append(output.read_bytes())
    assert made[0] == made[1]


def test_times_and_steps_are_those_of_the_input(truth, artifact, tmp_path):
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.time = 10.0 * np.arange(FRAMES) + 5
    calpha.save_xtc(str(tmp_path / "in.xtc"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    result = shipped.backmap_trajectory(
        tmp_path / "in.xtc", tmp_path / "out.xtc", tmp_path / "in.pdb", artifact=artifact
    )
    made = mdtraj.load(str(tmp_path / "out.xtc"), top=result["topology"])
    np.testing.assert_allclose(made.time, calpha.time)


def test_chain_break_is_told_and_not_bridged(truth, artifact, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(shipped.log.parent, "propagate", True)
    keep = [
        a.index for a in truth.topology.atoms if a.name == "CA" and a.residue.resSeq not in (9, 10)
    ]
    truth[:1].atom_slice(keep).save_pdb(str(tmp_path / "gap.pdb"))
    with caplog.at_level("WARNING"):
        shipped.backmap_trajectory(tmp_path / "gap.pdb", tmp_path / "o.pdb", artifact=artifact)
    assert "chain break before A:" in caplog.text and "11" in caplog.text
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
            "residue GLN5 in chain 0 has no CA atom",
        ),
        (lambda line: line.replace("GLN A   5", "XYZ A   5"), "unknown residue XYZ5"),
        (lambda line: None if line[13:16] == "CA " else line, "no CA atom; a C-alpha or all-atom"),
    ],
)
def test_unfitting_residues_are_named(truth, artifact, tmp_path, change, reason):
    path = edited_pdb(truth, tmp_path / "in.pdb", change)
    with pytest.raises(InputError, match=reason):
        shipped.backmap_trajectory(path, tmp_path / "out.pdb", artifact=artifact)
    assert [item.name for item in tmp_path.iterdir()] == ["in.pdb"]


def test_bad_frame_leaves_no_output(truth, artifact, tmp_path):
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    calpha.xyz[4, 3] = np.nan
    calpha.save_dcd(str(tmp_path / "in.dcd"))
    with pytest.raises(InputError, match=r"in.dcd: frame 4 has coordinates that are not numbers"):
        shipped.backmap_trajectory(
            tmp_path / "in.dcd", tmp_path / "out.dcd", tmp_path / "in.pdb", artifact=artifact
        )
    assert {item.name for item in tmp_path.iterdir()} == {"in.pdb", "in.dcd"}


@pytest.mark.parametrize("suffix", ["dcd", "pdb"])
def test_a_straight_line_of_calphas_is_refused(truth, artifact, tmp_path, suffix):
    """At a slant, so that rounding in the file bends it a little; nothing in real traces comes close."""
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha[0].save_pdb(str(tmp_path / "top.pdb"))
    slant = np.array([2.0, 1.0, -2.0]) / 3
    calpha.xyz[3, 8:11] = calpha.xyz[3, 8] + 0.38 * np.arange(3)[:, None] * slant
    calpha.xyz[3, 11:] += calpha.xyz[3, 10] + 0.38 * slant - calpha.xyz[3, 11]
    path = tmp_path / f"in.{suffix}"
    calpha.save(str(path))
    reason = rf"in.{suffix}: frame 3: the C-alpha atoms of A:\w+9, A:\w+10 and A:\w+11 lie on one"
    with pytest.raises(InputError, match=reason):
        shipped.backmap_trajectory(
            path, tmp_path / "out.pdb", tmp_path / "top.pdb", artifact=artifact
        )
    assert {item.name for item in tmp_path.iterdir()} == {"top.pdb", path.name}


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_the_unit_cell_is_kept(truth, artifact, tmp_path, suffix):
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.unitcell_lengths = 5.0 + 0.1 * np.arange(FRAMES)[:, None] + np.zeros(3)
    calpha.unitcell_angles = np.tile([90.0, 80.0, 70.0], (FRAMES, 1))
    calpha.save_xtc(str(tmp_path / "in.xtc"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    result = shipped.backmap_trajectory(
        tmp_path / "in.xtc", tmp_path / f"out.{suffix}", tmp_path / "in.pdb", artifact=artifact
    )
    made = mdtraj.load(result["output"][0], top=result["topology"])
    expected = calpha.unitcell_vectors[[0] * FRAMES if suffix == "pdb" else slice(None)]
    np.testing.assert_allclose(made.unitcell_vectors, expected, atol=2e-4)


def test_gro_is_read_with_its_names(truth, artifact, tmp_path):
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.save_gro(str(tmp_path / "in.gro"))
    result = shipped.backmap_trajectory(
        tmp_path / "in.gro", tmp_path / "out.dcd", artifact=artifact
    )
    made = mdtraj.load(str(tmp_path / "out.dcd"), top=result["topology"])
    np.testing.assert_allclose(calpha_of(made), calpha.xyz, atol=6e-4)


def test_a_topology_that_is_there_is_never_replaced(trace, artifact, tmp_path):
    mine = tmp_path / "out_top.pdb"
    mine.write_bytes(trace[1].read_bytes())
    with pytest.raises(ConfigError, match=r"out_top.pdb: there is another topology of this name"):
        shipped.backmap_trajectory(trace[0], tmp_path / "out.dcd", trace[1], artifact=artifact)
    assert mine.read_bytes() == trace[1].read_bytes()
    mine.unlink()
    shipped.backmap_trajectory(trace[0], tmp_path / "out.dcd", trace[1], artifact=artifact)
    before = mine.stat().st_mtime_ns
    shipped.backmap_trajectory(trace[0], tmp_path / "out.dcd", trace[1], seed=1, artifact=artifact)
    assert mine.stat().st_mtime_ns == before


class Counted(TrajectoryWriter):
    """Counts the files that are open."""

    now = most = 0

    def __enter__(self):
        Counted.now += 1
        Counted.most = max(Counted.most, Counted.now)
        return super().__enter__()

    def finish(self):
        Counted.now -= 1
        super().finish()


def test_many_members_are_the_same_and_open_few_files(trace, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "TrajectoryWriter", Counted)
    made = {}
    for name, at_once in (("all", 32), ("few", 2)):
        monkeypatch.setattr(shipped, "MEMBERS_AT_ONCE", at_once)
        Counted.now = Counted.most = 0
        output = tmp_path / f"{name}.dcd"
        result = shipped.backmap_trajectory(trace[0], output, trace[1], 5, 0, artifact)
        made[name] = [mdtraj.load(path, top=result["topology"]).xyz for path in result["output"]]
        assert Counted.most <= at_once + 1
    np.testing.assert_allclose(made["few"], made["all"], atol=2e-4)


def test_a_stop_signal_leaves_no_file(trace, artifact, tmp_path, monkeypatch):
    drawn, handler = Chain.run_members, signal.getsignal(signal.SIGTERM)

    def stopped_meanwhile(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return drawn(*arguments)

    monkeypatch.setattr(Chain, "run_members", stopped_meanwhile)
    monkeypatch.setitem(shipped.BATCH_RESIDUES, "cpu", 45)
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM; no output is kept, .* starts over"):
        shipped.backmap_trajectory(trace[0], tmp_path / "o.xtc", trace[1], 2, artifact=artifact)
    assert {item.name for item in tmp_path.iterdir()} == {"ca.dcd", "ca.pdb"}
    assert signal.getsignal(signal.SIGTERM) is handler


def test_input_is_never_replaced(trace, artifact, tmp_path):
    before = trace[0].read_bytes()
    with pytest.raises(ConfigError, match="would replace the input"):
        shipped.backmap_trajectory(trace[0], trace[0], trace[1], artifact=artifact)
    (tmp_path / "x_top.pdb").write_bytes(trace[1].read_bytes())
    with pytest.raises(ConfigError, match=r"x_top.pdb: would replace the input"):
        shipped.backmap_trajectory(
            trace[0], tmp_path / "x.xtc", tmp_path / "x_top.pdb", artifact=artifact
        )
    assert trace[0].read_bytes() == before
    with pytest.raises(ConfigError, match=r"can write .xtc, .dcd, .pdb, .cif, .gro, not .trr"):
        shipped.backmap_trajectory(trace[0], tmp_path / "x.trr", trace[1], artifact=artifact)


def test_the_stage_of_the_package_is_used_and_its_absence_told(
    trace, artifact, tmp_path, monkeypatch
):
    monkeypatch.setattr(shipped_weights, "resources", FakePackage(tmp_path))
    with pytest.raises(InputError, match=r"has no trained stage.*--artifact"):
        shipped.backmap_trajectory(trace[0], tmp_path / "o.xtc", trace[1])
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ca-fg").symlink_to(artifact)
    result = shipped.backmap_trajectory(trace[0], tmp_path / "o.xtc", trace[1])
    assert result["frames"] == FRAMES


class FakePackage:
    """Stands for importlib.resources: the package's files are elsewhere."""

    def __init__(self, folder):
        self.folder = folder

    def files(self, package):
        assert package == "hpcbackmap"
        return self.folder


def test_what_is_missing_is_told_before_anything_is_read(trace, artifact, tmp_path):
    with pytest.raises(InputError, match=r"no atom names.*--top"):
        shipped.backmap_trajectory(trace[0], tmp_path / "o.xtc", artifact=artifact)
    with pytest.raises(InputError, match=r"nothing.xtc: no such trajectory"):
        shipped.backmap_trajectory(tmp_path / "nothing.xtc", tmp_path / "o.xtc", artifact=artifact)
    with pytest.raises(OutputError, match=r"absent: no such folder"):
        shipped.backmap_trajectory(
            trace[0], tmp_path / "absent" / "o.xtc", trace[1], artifact=artifact
        )
