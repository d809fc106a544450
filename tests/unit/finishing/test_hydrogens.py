"""Hydrogens: bond lengths, chirality, names, purity; what a force field says of them."""

from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest

import hpcbackmap
from hpcbackmap.backmapping.request import Request, check_request
from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.naming import named_topology
from hpcbackmap.finishing.place import TURNING
from hpcbackmap.finishing.protonation import protonation_states
from hpcbackmap.protein.hydrogens import hydrogens_of
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.trajectories.writer import TrajectoryWriter

SEQUENCE = "GPAVLIFYWSTCMNQDEKRHAG"


@pytest.fixture(scope="module")
def helix():
    """C-alpha atoms of a helix with residues of all kinds."""
    n = len(SEQUENCE)
    turn = np.deg2rad(100) * np.arange(n)
    rows = [0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(n)]
    calpha = topology_from_sequence([SEQUENCE]).to_mdtraj("ca")
    return mdtraj.Trajectory(np.stack(rows, axis=1), calpha)


@pytest.fixture(scope="module")
def heavy(helix):
    made = hpcbackmap.backmap(helix, members=3, seed=4)
    return topology_from_sequence([SEQUENCE]), np.concatenate([one.xyz for one in made])


def with_states(topology, ph=7.0):
    return replace(topology, protonation=protonation_states(topology, None, ph))


def test_bonds_have_their_lengths(heavy):
    topology, positions = with_states(heavy[0]), heavy[1]
    hydrogens, made = hydrogens_of(topology), add_hydrogens(topology, positions)
    lengths = np.linalg.norm(made - positions[:, hydrogens.parent], axis=-1)
    wanted = {"C": (0.108, 0.109), "N": (0.101,), "O": (0.096,), "S": (0.1336,)}
    for hydrogen, parent in enumerate(hydrogens.parent):
        right = np.array(wanted[topology.elements[parent]])
        assert np.abs(lengths[:, hydrogen, None] - right).min(-1).max() < 1e-5


def test_alpha_hydrogens_are_those_of_l_residues(heavy):
    topology, positions = with_states(heavy[0]), heavy[1]
    hydrogens, made = hydrogens_of(topology), add_hydrogens(topology, positions)
    for hydrogen, name in enumerate(hydrogens.names):
        if name == "HA":
            residue = int(hydrogens.residue[hydrogen])
            alpha, n, c = (positions[:, topology.atom_index[residue, a]] for a in ("CA", "N", "C"))
            normal = np.cross(n - alpha, c - alpha)
            beta = positions[:, topology.atom_index[residue, "CB"]] - alpha
            mine = made[:, hydrogen] - alpha
            assert ((mine * normal).sum(-1) * (beta * normal).sum(-1) < 0).all()


def test_hydrogens_keep_away_from_heavy_atoms(heavy):
    topology, positions = with_states(heavy[0]), heavy[1]
    hydrogens, made = hydrogens_of(topology), add_hydrogens(topology, positions)
    gaps = np.linalg.norm(made[:, :, None] - positions[:, None], axis=-1)
    gaps[:, np.arange(len(hydrogens.parent)), hydrogens.parent] = 1.0
    turning = [group.kind in TURNING for group in hydrogens.groups for _ in group.names]
    assert gaps[:, turning].min() > 0.15, "nm; those whose place was chosen"
    assert gaps.min() > 0.13, "nm; those that lie where heavy atoms put them"


def test_a_structure_is_finished_by_itself_and_a_bad_one_left(heavy):
    topology, positions = with_states(heavy[0]), heavy[1].copy()
    positions[1, 5] = np.nan
    made = add_hydrogens(topology, positions)
    assert np.isnan(made[1]).all()
    for k in (0, 2):
        assert np.array_equal(made[k], add_hydrogens(topology, positions[[k]])[0])


def test_a_hydroxyl_turns_to_an_acceptor():
    topology = with_states(topology_from_sequence(["S", "G"]))
    index, positions = topology.atom_index, np.zeros((1, topology.n_atoms, 3), dtype=np.float32)
    serine = {"N": (0, 0, 0), "CA": (0.146, 0, 0), "C": (0.2, 0.142, 0), "O": (0.13, 0.24, 0.0),
              "CB": (0.2, -0.08, 0.12), "OG": (0.34, -0.08, 0.12), "OXT": (0.32, 0.15, 0)}  # fmt: skip
    for name, place in serine.items():
        positions[0, index[0, name]] = place
    oxygen, acceptor = np.array(serine["OG"]), np.array([0.42, 0.16, 0.24])
    for number, name in enumerate(("O", "C", "CA", "N", "OXT")):
        positions[0, index[1, name]] = acceptor + 0.12 * number * np.array([0.6, 0.7, 0.4])
    made = add_hydrogens(topology, positions)[0]
    bond = made[hydrogens_of(topology).names.index("HG")] - oxygen
    cosine = bond @ (acceptor - oxygen) / np.linalg.norm(bond) / np.linalg.norm(acceptor - oxygen)
    assert cosine > np.cos(np.deg2rad(35))


@pytest.mark.parametrize(
    ("ph", "expected"),
    [
        (7.0, {"HIE"}),
        (5.0, {"HIP"}),
        (4.0, {"HIP", "GLH"}),
        (2.0, {"HIP", "GLH", "ASH"}),
        (9.0, {"HIE", "CYM"}),
        (11.0, {"HIE", "CYM", "LYN"}),
    ],
)
def test_states_follow_the_ph(ph, expected):
    assert set(protonation_states(topology_from_sequence([SEQUENCE]), None, ph)) - {""} == expected


def test_ends_of_chains_keep_the_states_that_force_fields_have():
    topology = topology_from_sequence(["DGE", "KGC", "HGH"])
    assert set(protonation_states(topology, None, 2.0)) == {"", "HIP"}
    assert set(protonation_states(topology, None, 12.0)) == {"", "HIE"}


def test_a_histidine_has_its_hydrogen_where_the_acceptor_is(heavy):
    topology, there = heavy[0], heavy[1][:1].copy()
    residue, index = SEQUENCE.index("H"), topology.atom_index
    ring = {name: there[0, index[residue, name]] for name in ("CG", "CE1", "ND1")}
    outward = ring["ND1"] - (ring["CG"] + ring["CE1"]) / 2
    there[0, index[0, "O"]] = ring["ND1"] + 0.28 / np.linalg.norm(outward) * outward
    assert protonation_states(topology, there, 7.0)[residue] == "HID"


@pytest.mark.parametrize(
    ("names", "ph"),
    [
        ("pdb", 7.0),
        ("amber", 3.0),
        ("pdb", 11.0),
        ("amber", 11.0),
        ("charmm", 7.0),
        ("charmm", 3.0),
        ("gromacs", 7.0),
        ("gromacs", 11.0),
    ],
)
def test_openmm_takes_them_as_they_are(heavy, names, ph, tmp_path):
    """Residues that its PDB reader does not know, such as HSE and LYN, by their CONECT lines."""
    app = pytest.importorskip("openmm.app", reason="needs OpenMM")
    topology, positions = with_states(heavy[0], ph), heavy[1][:1]
    hydrogens = hydrogens_of(topology)
    atoms = hydrogens.joined(positions, add_hydrogens(topology, positions))
    with TrajectoryWriter(tmp_path / "a.pdb", named_topology(hydrogens, names)) as file:
        file.append(atoms, np.zeros(1, dtype=int), np.zeros(1))
    read = app.PDBFile(str(tmp_path / "a.pdb"))
    for field in ("amber14/protein.ff14SB.xml", "charmm36.xml"):
        system = app.ForceField(field).createSystem(read.topology)
        assert system.getNumParticles() == atoms.shape[1]


def test_names_of_force_fields():
    hydrogens = hydrogens_of(with_states(topology_from_sequence(["ISHG"])))

    def named(names):
        residues = [*named_topology(hydrogens, names).residues]
        return [each.name for each in residues], [{a.name for a in r.atoms} for r in residues]

    residues, atoms = named("charmm")
    assert residues == ["ILE", "SER", "HSE", "GLY"]
    assert {"HT1", "CD", "HD1", "HG11", "HG12"} <= atoms[0]
    assert "HG13" not in atoms[0]
    assert {"HN", "HB1", "HB2", "HG1"} <= atoms[1]
    assert {"HA1", "HA2", "OT1", "OT2"} <= atoms[3]
    residues, atoms = named("gromacs")
    assert residues[2] == "HISE"
    assert {"H", "HB1", "HB2", "HG"} <= atoms[1]
    residues, atoms = named("amber")
    assert residues[2] == "HIE"
    assert {"HB2", "HB3"} <= atoms[1]


def test_written_order_is_that_of_residues_and_is_read_again(heavy):
    topology, positions = with_states(heavy[0]), heavy[1]
    hydrogens = hydrogens_of(topology)
    atoms = hydrogens.joined(positions, add_hydrogens(topology, positions))
    whole = named_topology(hydrogens, "charmm")
    again, index, left = topology_from_mdtraj(whole, atoms[0], "x")
    assert again.sequence == topology.sequence
    assert left == {"hydrogen": len(hydrogens.names)}
    assert np.array_equal(atoms[:, index], positions)
    owners = [atom.residue.index for atom in whole.atoms]
    assert owners == sorted(owners)


def test_api_gives_heavy_atoms_that_are_the_same_and_their_hydrogens(helix, heavy):
    topology, positions = with_states(heavy[0]), heavy[1]
    made = hpcbackmap.backmap(helix, members=3, seed=4, hydrogens=True, names="amber")
    atoms = np.concatenate([one.xyz for one in made])
    expected = hydrogens_of(topology).joined(positions, add_hydrogens(topology, positions))
    assert np.array_equal(atoms, expected)
    assert "HIE" in {residue.name for residue in made[0].topology.residues}


def test_what_cannot_be_is_refused(tmp_path):
    for given, word in (
        ({"ph": 15.0, "hydrogens": True}, "from 0 to 14"),
        ({"names": "amber"}, "--hydrogens"),
        ({"names": "amber", "hydrogens": True, "output": tmp_path / "x.zarr"}, "keeps no names"),
        ({"names": "opls", "hydrogens": True}, "charmm"),
    ):
        with pytest.raises(ConfigError, match=word):
            check_request(Request(**given), [])


@pytest.mark.trains
def test_the_page_on_simulations_runs(helix, tmp_path, monkeypatch):
    pytest.importorskip("openmm.app", reason="needs OpenMM")
    page = Path(__file__).parents[3] / "docs/md-ready.md"
    code = page.read_text().split("```python")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    hpcbackmap.backmap(helix, mode=True, hydrogens=True, output="atoms.pdb")
    code = code.replace("padding=1.0", "padding=0.5").replace("run.step(500)", "run.step(5)")
    found: dict = {}
    code = code.replace("minimizeEnergy()", "minimizeEnergy(maxIterations=50)")
    exec(code, found)  # noqa: S102  # the code of our own page
    state = found["run"].context.getState(getEnergy=True)
    assert state.getPotentialEnergy()._value < 0
