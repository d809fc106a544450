"""Relaxation: what moves and how far, what must not change, what is kept as it was and how that is told."""

import json
import subprocess
import sys
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
from pydantic import ValidationError

import hpcbackmap
from hpcbackmap.cli.app import main
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.finishing import options
from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.protonation import protonation_states
from hpcbackmap.protein.hydrogens import hydrogens_of
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.protein.torsions import omega_angles
from hpcbackmap.runtime.errors import ResourceError

SEQUENCE = "GPAVLIFYWSTCMNQDEKRHAG"
needs_openmm = pytest.mark.skipif(
    options.find_spec("openmm") is None, reason="needs OpenMM (extra md)"
)


def helix_of(sequence, chains=1, apart=1.0):
    """C-alpha atoms of helices side by side, ``apart`` nm."""
    n = len(sequence)
    turn = np.deg2rad(100) * np.arange(n)
    rows = [0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(n)]
    one = np.stack(rows, axis=1)
    places = np.concatenate([one + [apart * k, 0, 0] for k in range(chains)])
    return mdtraj.Trajectory(places, topology_from_sequence([sequence] * chains).to_mdtraj("ca"))


@pytest.fixture(scope="module")
def made():
    structures = hpcbackmap.backmap(helix_of(SEQUENCE), members=3, seed=4)
    topology = topology_from_sequence([SEQUENCE])
    heavy = np.concatenate([one.xyz for one in structures])
    topology = replace(topology, protonation=protonation_states(topology, heavy, 7.0))
    return topology, heavy, add_hydrogens(topology, heavy)


@needs_openmm
def test_energy_falls_and_atoms_stay_about_where_they_were(made):
    from hpcbackmap.finishing.relax import relax

    topology, heavy, hydrogens = made
    done = relax(topology, heavy, hydrogens)
    assert done.kept == {}
    assert (done.energies[:, 1] < done.energies[:, 0] - 10 * topology.n_residues).all()
    moved = np.sqrt(np.square(done.heavy - heavy).sum(-1).mean(-1))
    assert (moved > 0.001).all()
    assert (moved < 0.03).all()
    assert (np.abs(omega_angles(topology, done.heavy)) > np.deg2rad(150)).all()
    lengths = np.linalg.norm(done.hydrogens - done.heavy[:, hydrogens_of(topology).parent], axis=-1)
    assert lengths.min() > 0.09
    assert lengths.max() < 0.14


@needs_openmm
def test_a_structure_is_relaxed_by_itself(made):
    from hpcbackmap.finishing.relax import relax

    topology, heavy, hydrogens = made
    together = relax(topology, heavy, hydrogens)
    for number in (2, 0):
        alone = relax(topology, heavy[[number]], hydrogens[[number]])
        assert np.array_equal(alone.heavy[0], together.heavy[number])
        assert np.array_equal(alone.hydrogens[0], together.hydrogens[number])


@needs_openmm
def test_what_is_broken_is_kept_as_it_was_and_named(made):
    from hpcbackmap.finishing.relax import relax

    topology, heavy, hydrogens = made
    heavy, hydrogens = heavy.copy(), hydrogens.copy()
    heavy[0, topology.atom_residue == 4] = heavy[0, 3]
    heavy[1, topology.atom_residue == 6] += [0.5, 0.2, 0.1]
    heavy[2, 0] = np.nan
    done = relax(topology, heavy, hydrogens)
    assert set(done.kept) == {0, 1}
    assert np.array_equal(done.heavy, heavy, equal_nan=True)
    assert np.array_equal(done.hydrogens, hydrogens)
    assert "off its length" in done.kept[1]


@needs_openmm
@pytest.mark.parametrize("ph", [3.0, 12.0])
def test_a_chain_with_a_gap_is_relaxed_in_all_its_states(ph):
    whole = helix_of(SEQUENCE * 2)
    gap = whole.atom_slice([a for a in range(44) if not 18 <= a < 24])
    plain, relaxed = (
        hpcbackmap.backmap(gap, relax=relax, hydrogens=True, ph=ph)[0] for relax in (False, True)
    )
    assert plain.topology == relaxed.topology
    moved = np.sqrt(np.square(plain.xyz - relaxed.xyz).sum(-1).mean())
    assert 0.001 < moved < 0.05


@needs_openmm
def test_gaps_disulphides_and_chains_are_what_the_force_field_takes():
    from hpcbackmap.finishing.relax import solvated_system

    topology = topology_from_sequence(["CAGPCAAC", "GHC"])
    bonded = list(topology.bonded)
    bonded[3] = bonded[6] = False
    topology = replace(
        topology,
        bonded=tuple(bonded),
        disulphides=((0, 4), (7, 10)),
        protonation=("",) * 9 + ("HID", ""),
    )
    atoms = hydrogens_of(topology)
    system = solvated_system(atoms, None)
    assert system.getNumParticles() == topology.n_atoms + len(atoms.names)
    assert sum(name == "GBSAOBCForce" for name in map(_kind, system.getForces())) == 1
    assert "CustomGBForce" not in map(_kind, system.getForces())


def _kind(force):
    return type(force).__name__


@needs_openmm
def test_a_fast_solvent_is_that_of_the_force_field(made):
    import openmm
    from openmm import app

    from hpcbackmap.finishing.naming import named_topology
    from hpcbackmap.finishing.relax import FIELD, solvated_system

    topology, heavy, hydrogens = made
    atoms = hydrogens_of(topology)
    places = atoms.joined(heavy[0], hydrogens[0])
    slow = app.ForceField(*FIELD).createSystem(named_topology(atoms, "amber").to_openmm())
    energies = []
    for system in (slow, solvated_system(atoms, None)):
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(places)
        energies.append(context.getState(getEnergy=True).getPotentialEnergy()._value)
    assert energies[0] == pytest.approx(energies[1], rel=1e-3)


@needs_openmm
def test_the_command_relaxes_counts_and_takes_hydrogens_off_again(tmp_path, capsys):
    helix_of(SEQUENCE).save_pdb(str(tmp_path / "ca.pdb"))
    output = tmp_path / "a.pdb"
    with pytest.raises(SystemExit) as end:
        main(["backmap", str(tmp_path / "ca.pdb"), "-o", str(output), "--relax", "--json"])
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)["relaxation"]
    assert (told["relaxed"], told["failed"], told["unrelaxed"]) == (1, 0, [])
    assert told["kj_per_mol_residue_after"] < told["kj_per_mol_residue_before"] - 10
    written = mdtraj.load(str(output))
    assert not any(atom.element.symbol == "H" for atom in written.topology.atoms)
    (whole,) = hpcbackmap.backmap(tmp_path / "ca.pdb", relax=True, hydrogens=True)
    _, index, _ = topology_from_mdtraj(whole.topology, whole.xyz[0], "x")
    assert np.abs(whole.xyz[:, index] - written.xyz).max() < 1e-4


@needs_openmm
def test_the_exit_code_says_that_a_structure_was_kept(tmp_path, capsys):
    """Two chains in one place."""
    helix_of(SEQUENCE, chains=2, apart=0.02).save_pdb(str(tmp_path / "ca.pdb"))
    output = tmp_path / "a.pdb"
    with pytest.raises(SystemExit) as end:
        main(["backmap", str(tmp_path / "ca.pdb"), "-o", str(output), "--relax", "--json"])
    said = capsys.readouterr()
    assert end.value.code == 6
    told = json.loads(said.out)["relaxation"]
    assert (told["relaxed"], told["failed"]) == (0, 1)
    assert told["unrelaxed"][0]["frame"] == 0
    assert "1 of 1 structures could not be relaxed" in said.err.splitlines()[-1]
    assert output.exists()


WITHOUT_OPENMM = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "openmm" else found(name, *rest)
from hpcbackmap.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""


def test_without_openmm_it_is_refused_in_a_line_before_torch_is_loaded(tmp_path):
    helix_of(SEQUENCE).save_pdb(str(tmp_path / "ca.pdb"))
    command = ["backmap", str(tmp_path / "ca.pdb"), "-o", str(tmp_path / "a.pdb"), "--relax"]
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPENMM, *command], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["5", "False"]
    assert ended.stderr.count("\n") == 1
    assert "hpcbackmap[md]" in ended.stderr


def test_openmm_that_does_not_load_is_said(monkeypatch, tmp_path):
    (tmp_path / "openmm").mkdir()
    (tmp_path / "openmm" / "__init__.py").write_text("raise ImportError('libOpenMM.so: not there')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "openmm"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ResourceError, match=r"--relax: OpenMM .* does not load: libOpenMM\.so"):
        options.require_openmm(True, "--relax")


def test_a_campaign_relaxes_only_what_it_writes():
    with pytest.raises(ValidationError, match=r"backmap\.relax: moves heavy atoms"):
        Campaign(
            name="t",
            ladder=["fg", "ca", "ucg:4"],
            systems=[{"name": "s", "trajectories": ["x.pdb"]}],
            backmap={"relax": True, "keep": ["ca"]},
        )
