"""The commands of the tutorial's sections on bead models run, and what they make are proteins."""

import json
import re

import mdtraj
import numpy as np
import pytest
from commands import EXAMPLE, REPOSITORY, succeed

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.representations.coarsen import coarse_grained

FRAMES = 6


@pytest.fixture(scope="module")
def truth():
    """Heavy atoms of a few frames, and the molecule."""
    whole = mdtraj.load(str(EXAMPLE / "trpcage.xtc"), top=str(EXAMPLE / "trpcage_top.pdb"))[::200]
    topology, index, _ = topology_from_mdtraj(whole.topology, whole.xyz[0], "example")
    return topology, whole.xyz[:FRAMES, index]


def beads(truth, representation: str) -> mdtraj.Trajectory:
    topology, positions = truth
    names, residues, places = coarse_grained(representation, topology, positions)
    top = mdtraj.Topology()
    chain = top.add_chain("A")
    rows = [top.add_residue(name, chain, k + 1) for k, name in enumerate(topology.sequence)]
    for name, residue in zip(names, residues, strict=True):
        top.add_atom(name, mdtraj.element.virtual, rows[residue])
    return mdtraj.Trajectory(places, top, time=5.0 * np.arange(len(places)))


def command_of(section: str) -> list[str]:
    """Words after ``hpcbackmap`` of the one command in a section of the tutorial."""
    text = (REPOSITORY / "docs" / "tutorial.md").read_text()
    body = text.partition(f"### {section}")[2].partition("\n##")[0]
    (line,) = re.findall(r"^    hpcbackmap (.*)$", body, re.MULTILINE)
    return line.split()


def run(section: str, folder, monkeypatch) -> dict:
    monkeypatch.chdir(folder)
    return json.loads(succeed(*command_of(section), "--json").stdout)


def test_centres_of_mass(truth, tmp_path, monkeypatch):
    coarse = beads(truth, "com")
    coarse.save_dcd(str(tmp_path / "calvados.dcd"))
    coarse[0].save_pdb(str(tmp_path / "calvados.pdb"))
    result = run("From one bead per residue at centres of mass", tmp_path, monkeypatch)
    assert result["representation"] == "com"
    assert result["structures"] == 2 * FRAMES
    assert result["cis_elsewhere"] == result["distorted_peptide_bonds"] == 0
    topology, positions = truth
    for path in result["output"]:
        made = mdtraj.load(path, top=result["topology"])
        moved = made.xyz[:, topology.ca_index] - positions[:, topology.ca_index]
        error = np.sqrt(np.square(moved).sum(-1).mean())
        taken = np.sqrt(np.square(coarse.xyz - positions[:, topology.ca_index]).sum(-1).mean())
        assert error < 0.6 * taken, "a bead taken for the C-alpha atom is farther off"


def test_martini_beads(truth, tmp_path, monkeypatch):
    coarse = beads(truth, "martini3")
    coarse.save_xtc(str(tmp_path / "martini.xtc"))
    coarse[0].save_gro(str(tmp_path / "martini.gro"))
    result = run("From Martini", tmp_path, monkeypatch)
    assert result["representation"] == "martini3"
    assert result["structures"] == FRAMES
    assert result["cis_elsewhere"] == result["distorted_peptide_bonds"] == 0
    topology, _ = truth
    made = mdtraj.load(result["output"][0]).xyz
    *_, again = coarse_grained("martini3", topology, made)
    side = np.array([not atom.name.startswith("BB") for atom in coarse.topology.atoms])
    off = np.linalg.norm(again - coarse.xyz, axis=-1)
    assert np.median(off[:, side]) < 0.12, "nm; side chains follow their beads"
