"""Disulphides: named, proposed or refused, closed in every structure, written."""

import logging

import mdtraj
import numpy as np
import pytest

import hpcbackmap
from hpcbackmap.backmapping.request import Request, check_request
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.runtime.errors import ConfigError, InputError

LENGTH = 8


@pytest.fixture(scope="module")
def strands(tmp_path_factory):
    """C-alpha atoms of two strands side by side, a cysteine in the middle of each facing the other."""
    sequence = ["GAVCAVGA", "GAVCAVGA"]
    topology = topology_from_sequence(sequence).to_mdtraj("ca")
    rise, bend = np.arange(LENGTH) - 3, 0.04 * (np.arange(LENGTH) % 2 * 2 - 1)
    one = np.stack([bend - 0.31, np.full(LENGTH, 0.0), 0.365 * rise], axis=1)
    two = one * [-1.0, -1.0, 1.0]
    path = tmp_path_factory.mktemp("strands") / "ca.pdb"
    mdtraj.Trajectory(np.concatenate([one, two])[None], topology).save_pdb(str(path))
    return path


def sulphurs(made):
    sites = made.topology.select("name SG")
    return np.linalg.norm(made.xyz[:, sites[0]] - made.xyz[:, sites[1]], axis=-1)


def test_named_disulphides_are_closed_and_the_rest_stays(strands):
    plain = hpcbackmap.backmap(strands, members=4, seed=2)
    bonded = hpcbackmap.backmap(strands, members=4, seed=2, disulphides="A:4-B:4")
    gaps = np.concatenate([sulphurs(one) for one in bonded])
    assert (gaps > 0.19).all()
    assert (gaps < 0.22).all()
    assert bonded[0].topology.n_atoms == plain[0].topology.n_atoms
    beta, sulphur = (bonded[0].topology.select(f"resSeq 4 and name {a}") for a in ("CB", "SG"))
    lengths = np.linalg.norm(bonded[0].xyz[:, beta] - bonded[0].xyz[:, sulphur], axis=-1)
    assert np.abs(lengths - 0.181).max() < 0.003


def test_hydrogens_leave_bonded_sulphurs(strands):
    (made,) = hpcbackmap.backmap(
        strands, disulphides="A:4-B:4", hydrogens=True, names="amber", mode=True
    )
    cysteines = [residue for residue in made.topology.residues if residue.name == "CYX"]
    assert len(cysteines) == 2
    assert not any(atom.name == "HG" for residue in cysteines for atom in residue.atoms)


def test_auto_says_what_it_proposes(strands, caplog):
    with caplog.at_level(logging.INFO, "hpcbackmap"):
        made = hpcbackmap.backmap(strands, disulphides="auto", members=2)
    assert "1 disulphide(s): A:CYS4-B:CYS4" in caplog.text
    assert all((sulphurs(one) < 0.22).all() for one in made)


def test_files_name_them_and_are_read_again(strands, tmp_path):
    output = tmp_path / "atoms.pdb"
    hpcbackmap.backmap(strands, output=output, disulphides="A:4-B:4", frames="0:1")
    text = output.read_text()
    numbers = [
        line[6:11] for line in text.splitlines() if line[:4] == "ATOM" and line[12:16] == " SG "
    ]
    assert f"CONECT{numbers[0]}{numbers[1]}\n" in text
    assert text.endswith("END\n")
    assert text.startswith("SSBOND")
    again = hpcbackmap.backmap(output, members=2)
    assert all((sulphurs(one) < 0.22).all() for one in again)
    hpcbackmap.backmap(strands, output=tmp_path / "a.cif", disulphides="A:4-B:4")
    assert "disulf1" in (tmp_path / "a.cif").read_text()


@pytest.mark.parametrize(
    ("text", "error", "word"),
    [
        ("A:4", ConfigError, "A:5-A:55"),
        ("A:4-A:5", InputError, "no cysteine"),
        ("A:4-A:40", InputError, "no residue"),
        ("4-B:4", InputError, "more than one chain"),
    ],
)
def test_what_cannot_be_is_refused(strands, text, error, word):
    with pytest.raises(error, match=word):
        hpcbackmap.backmap(strands, disulphides=text)


def test_cysteines_far_apart_are_refused_with_their_distance(tmp_path):
    topology = topology_from_sequence(["CAAAAAAC"]).to_mdtraj("ca")
    strand = np.stack([0.04 * (np.arange(8) % 2), np.zeros(8), 0.37 * np.arange(8)], axis=1)
    with pytest.raises(InputError, match=r"25\.9 A apart"):
        hpcbackmap.backmap(mdtraj.Trajectory(strand, topology), disulphides="A:1-A:8")
    check_request(Request(disulphides="none"), [])
