"""Files of beads in: matched to the ladder, and atoms out."""

import json
import sys

import mdtraj
import numpy as np
import pytest

from hpcbackmap.backmapping.driver import backmap
from hpcbackmap.cli.inspection import describe_campaign
from hpcbackmap.config.campaign import Campaign, CgvaeConfig, GenzprotConfig
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.store import open_store

SEQUENCE = "NLYIQWLKDGGPSSGRPPPS"
FRAMES = 12


@pytest.fixture(scope="module")
def atoms(example_run):
    """Positions of heavy atoms [F, A, 3] and the molecule."""
    trajectory = example_run[:FRAMES]
    topology, index, _ = topology_from_mdtraj(trajectory.topology, trajectory.xyz[0], "example")
    return trajectory.xyz[:, index], topology


def write_beads(folder, positions, names, residues=None, cell=None):
    """beads.pdb and beads.xtc: one residue per particle."""
    top = mdtraj.Topology()
    chain = top.add_chain()
    for i, name in enumerate(names):
        residue = top.add_residue(residues[i] if residues else "CG", chain, i + 1)
        top.add_atom(name, mdtraj.element.carbon, residue)
    trajectory = mdtraj.Trajectory(positions, top)
    if cell is not None:
        trajectory.unitcell_vectors = np.tile(cell, (len(positions), 1, 1)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    trajectory[0].save(str(folder / "beads.pdb"))
    trajectory.save(str(folder / "beads.xtc"))
    return {
        "name": "p",
        "topology": str(folder / "beads.pdb"),
        "trajectories": [str(folder / "beads.xtc")],
    }


def campaign(folder, system, ladder=("fg", "ca", "ucg:5"), **settings):
    return Campaign(
        name="t", workdir=str(folder / "work"), ladder=ladder, systems=[system], **settings
    )


def store_of(made):
    return open_store(made.path(made.store.path))


@pytest.mark.trains
def test_five_beads_become_atoms(atoms, tmp_path):
    positions, topology = atoms
    ladder = build_ladder(topology, ["fg", "ca", "ucg:5"])
    beads = ladder.coarsen(positions)["ucg5"]
    system = write_beads(tmp_path, beads, [f"B{i}" for i in range(5)])
    system |= {"resolution": "ucg5", "sequence": [SEQUENCE]}
    kinds = {"ucg5-ca": CgvaeConfig(width=16), "ca-fg": GenzprotConfig(width=16, layers=1)}
    made = campaign(
        tmp_path,
        system,
        stages={
            name: {"model": model, "artifact": str(tmp_path / name)}
            for name, model in kinds.items()
        },
        backmap={"members": 1, "input": str(tmp_path / "work" / "frames.zarr")},
    )
    summary = ingest(made, LocalComm())
    assert (summary["residues"], summary["frames_out"]) == (20, FRAMES)
    store = store_of(made)
    assert store.resolutions == ("ucg5",)
    stored = store.system("p").read("ucg5", 0, FRAMES)
    np.testing.assert_allclose(stored, beads, rtol=0, atol=6e-4)
    ladder = store.system("p").ladder
    for name, model in kinds.items():
        save_artifact(build_stage(name, model, [ladder], seed=0), tmp_path / name, {})
    backmap(made, LocalComm())
    output = open_store(made.path(made.backmap.output)).system("p")
    levels = ladder.coarsen(output.read("fg", 0, FRAMES))
    assert 10 * np.abs(levels["ucg5"] - stored).max() < 1e-4, "Angstrom"


def test_beads_out_of_order_are_shown_and_put_right(atoms, tmp_path):
    """Centres of mass with residue names, in another order and with a particle that is no bead."""
    positions, topology = atoms
    com = build_ladder(topology, ["fg", "com"]).coarsen(positions)["com"]
    order = np.roll(np.arange(20), 3)
    extra = np.concatenate([com[:, order], com[:, :1] + 5], axis=1)
    residues = [topology.sequence[i] for i in order] + ["ION"]
    system = write_beads(tmp_path, extra, ["CG"] * 21, residues)
    system |= {"resolution": "com", "sequence": ">chain A\n" + SEQUENCE}

    def refused(match, **more):
        made = campaign(tmp_path, system | more, ladder=("fg", "com"))
        with pytest.raises((InputError, ConfigError), match=match):
            ingest(made, LocalComm())

    refused("21 particles, com of system p has 20 beads; choose them")
    refused("particle 0 is of PRO1, but bead 0 of com is A:ASN1;", selection="not resname ION")
    refused("no particle 21", beads=[21])
    refused("beads 0 and 1 are both particle 4", beads=[4, 4])
    refused("'name CG' selects 21 particles", beads=["name CG"])
    beads = np.argsort(order).tolist()
    made = campaign(tmp_path, system | {"beads": beads}, ladder=("fg", "com", "ucg:4"))
    shown = describe_campaign(made)["systems"]["p"]["beads"]
    assert shown["bead 0"] == f"file particle {beads[0]} (CG of ASN {beads[0] + 1}) is A:ASN1"
    summary = ingest(made, LocalComm())
    assert summary["dropped_atoms"] == {"not selected": 1}
    stored = store_of(made).system("p")
    np.testing.assert_allclose(stored.read("com", 0, FRAMES), com, rtol=0, atol=6e-4)
    means = stored.ladder.coarsen(stored.read("com", 0, FRAMES), start="com")["ucg4"]
    np.testing.assert_array_equal(stored.read("ucg4", 0, FRAMES), means)


def test_martini_backbones_are_no_calphas(atoms, tmp_path):
    positions, topology = atoms
    backbone = build_ladder(topology, ["fg", "bb"]).coarsen(positions)["bb"]
    system = write_beads(tmp_path, backbone, ["BB"] * 20, list(topology.sequence))
    for resolution in (None, "ca"):
        with pytest.raises(InputError, match="BB beads are centres of backbones"):
            ingest(campaign(tmp_path, system | {"resolution": resolution}), LocalComm())
    made = campaign(tmp_path, system | {"resolution": "bb"}, ladder=("fg", "bb"))
    ingest(made, LocalComm())
    stored = store_of(made).system("p")
    assert stored.ladder.topology.sequence == topology.sequence, "from the residue names"
    np.testing.assert_allclose(stored.read("bb", 0, FRAMES), backbone, rtol=0, atol=6e-4)


def test_the_molecule_may_be_a_structure_or_a_store(atoms, tmp_path, example_dir):
    """Blobs are learned from structures, so beads of blobs need the store that has them."""
    positions, _ = atoms
    top, xtc = (str(example_dir / name) for name in ("trpcage_top.pdb", "trpcage.xtc"))
    ladder = ("fg", "ca", "ucg:5:blobs")
    fine = campaign(
        tmp_path / "fine", {"name": "p", "topology": top, "trajectories": [xtc]}, ladder
    )
    ingest(fine, LocalComm())
    known = store_of(fine).system("p").ladder
    beads = known.coarsen(positions)["ucg5"]
    system = write_beads(tmp_path, beads, ["B"] * 5) | {"resolution": "ucg5"}
    with pytest.raises(ConfigError, match=r"ucg:5:blobs was made from structures; name the frame"):
        ingest(campaign(tmp_path, system | {"molecule": top}, ladder), LocalComm())
    made = campaign(tmp_path, system | {"molecule": str(fine.path("frames.zarr"))}, ladder)
    ingest(made, LocalComm())
    assert store_of(made).system("p").ladder.digest == known.digest
    calphas = write_beads(tmp_path / "ca", known.coarsen(positions)["ca"], ["X"] * 20)
    made = campaign(tmp_path / "ca", calphas | {"resolution": "ca", "molecule": top})
    ingest(made, LocalComm())
    assert store_of(made).resolutions == ("ca", "ucg5")
    assert store_of(made).system("p").ladder.topology == known.topology


def test_beads_that_cannot_be_are_refused_and_cut_ones_mended(atoms, tmp_path):
    positions, topology = atoms
    beads = build_ladder(topology, ["fg", "ca", "ucg:5"]).coarsen(positions)["ucg5"]
    beads -= beads.min(axis=(0, 1))
    keys = {"resolution": "ucg5", "sequence": [SEQUENCE]}
    for name, factor, match in (("a", 10, "seems to be in Angstrom"), ("b", 0.1, "too small")):
        system = write_beads(tmp_path / name, beads * factor, ["B"] * 5) | keys
        with pytest.raises(InputError, match=rf"neighbouring beads .*{match}"):
            ingest(campaign(tmp_path / name, system), LocalComm())
    torn = beads.copy()
    torn[4, 2] += 9
    system = write_beads(tmp_path / "c", torn, ["B"] * 5) | keys
    with pytest.raises(InputError, match=r"frame 4: bead 1 \(A:GLN5 to A:LYS8\) and bead 2"):
        ingest(campaign(tmp_path / "c", system), LocalComm())
    shifted = (beads + 1.5) % 3.0
    system = write_beads(tmp_path / "d", shifted, ["B"] * 5, cell=np.eye(3) * 3.0) | keys
    made = campaign(tmp_path / "d", system)
    assert ingest(made, LocalComm())["frames_made_whole"] > 0
    found = store_of(made).system("p").read("ucg5", 0, FRAMES)
    np.testing.assert_allclose(found - found[:, :1], beads - beads[:, :1], rtol=0, atol=1.2e-3)


def test_keys_that_contradict_each_other():
    system = {"name": "p", "trajectories": ["x.xtc"]}
    for keys, match in (
        ({"sequence": "A"}, "name their `resolution`"),
        ({"resolution": "com"}, "'com' is not one of ca, ucg5"),
        ({"resolution": "ca", "sequence": "A", "molecule": "m.pdb"}, "sequence or molecule"),
        ({"resolution": "ca", "beads": [0], "selection": "all"}, "selection or beads"),
    ):
        with pytest.raises(ValueError, match=match):
            Campaign(name="t", ladder=["fg", "ca", "ucg:5"], systems=[system | keys])


def test_gsd_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsd", None)
    (tmp_path / "cg.gsd").touch()
    system = {"name": "p", "trajectories": [str(tmp_path / "cg.gsd")], "resolution": "ca"}
    with pytest.raises(InputError, match=r"cg.gsd: .* needs gsd \(pip install 'hpcbackmap\[gsd\]'"):
        ingest(campaign(tmp_path, system), LocalComm())


def test_gsd_files_are_read(atoms, tmp_path):
    """Residue names as particle types, wrapped into the box as HOOMD-blue does."""
    hoomd = pytest.importorskip("gsd.hoomd", reason="needs the extra gsd")
    positions, topology = atoms
    com = build_ladder(topology, ["fg", "com"]).coarsen(positions)["com"]
    kinds = sorted(set(topology.sequence))
    size = np.float32(4.0)
    with hoomd.open(str(tmp_path / "cg.gsd"), "w") as file:
        for step, frame in enumerate(com):
            snapshot = hoomd.Frame()
            snapshot.configuration.step = 100 * step
            snapshot.configuration.box = [size, size, size, 0, 0, 0]
            snapshot.particles.N = len(frame)
            snapshot.particles.types = kinds
            snapshot.particles.typeid = [kinds.index(name) for name in topology.sequence]
            snapshot.particles.position = (frame + 1) % size - size / 2
            file.append(snapshot)
    system = {"name": "p", "trajectories": [str(tmp_path / "cg.gsd")], "resolution": "com"}
    made = campaign(tmp_path, system, ladder=("fg", "com"))
    ingest(made, LocalComm())
    stored = store_of(made).system("p")
    letters = "".join(RESIDUES[name].letter for name in stored.ladder.topology.sequence)
    assert letters == SEQUENCE
    found = stored.read("com", 0, FRAMES)
    np.testing.assert_allclose(found - found[:, :1], com - com[:, :1], rtol=0, atol=1e-5)
    assert stored.read_observable("time", 3, 5).tolist() == [300, 400]
    assert json.dumps(describe_campaign(made))
