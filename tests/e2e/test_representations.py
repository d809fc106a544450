"""`hpcbackmap backmap` on a protein coarse-grained in the ways that users have: told apart, made of atoms."""

import json

import mdtraj
import numpy as np
import pytest
from commands import EXAMPLE, succeed

from hpcbackmap.metrics.peptide import link_lengths
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.torsions import omega_angles
from hpcbackmap.resolution.representations.coarsen import coarse_grained

FRAMES = 3
NOISE = 0.018 / 2**0.5
"""nm; displacement along each axis that makes bonds fluctuate by 0.018."""


@pytest.fixture(scope="module")
def protein():
    """Trp-cage: topology, frames of heavy atoms."""
    frames = mdtraj.load(EXAMPLE / "trpcage.xtc", top=EXAMPLE / "trpcage_top.pdb")[::20][:FRAMES]
    topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], "trpcage")
    return topology, frames.xyz[:, index]


def write_beads(topology, positions, name: str, noise: float, folder):
    """The beads as a simulation would leave them: a PDB file of one frame and an XTC file of all."""
    names, residue, beads = coarse_grained(name, topology, positions)
    beads = beads + np.random.default_rng(0).normal(0, noise, beads.shape)
    top = mdtraj.Topology()
    chain = top.add_chain("A")
    rows = [top.add_residue(kind, chain, i + 1) for i, kind in enumerate(topology.sequence)]
    for bead, owner in zip(names, residue, strict=True):
        top.add_atom(bead, mdtraj.element.carbon, rows[owner])
    run = mdtraj.Trajectory(beads.astype(np.float32), top)
    run[0].save_pdb(str(folder / "beads.pdb"))
    run.save_xtc(str(folder / "run.xtc"))
    return beads


@pytest.mark.parametrize(
    ("name", "noise", "limit"),
    [
        ("com", NOISE, 0.22), ("bb", 0.0, 0.30), ("martini2", 0.0, 0.15), ("martini3", NOISE, 0.15),
        ("ca+sc", 0.0, 0.15), ("ca+com", NOISE, 0.18), ("backbone", 0.0, 0.22),
    ],
)  # fmt: skip
def test_beads_become_atoms(protein, tmp_path, name, noise, limit):
    """Root mean square deviation of all heavy atoms in nm, superposed."""
    topology, positions = protein
    write_beads(topology, positions, name, noise, tmp_path)
    arguments = ["--top", tmp_path / "beads.pdb", "-o", tmp_path / "atoms.xtc", "--mode", "--json"]
    result = succeed("backmap", tmp_path / "run.xtc", *arguments)
    record = json.loads(result.stdout)
    assert record["representation"] == name
    assert f"read as {name}" in result.stderr
    made = mdtraj.load(tmp_path / "atoms.xtc", top=record["topology"])
    there, order, _ = topology_from_mdtraj(made.topology, made.xyz[0], "atoms.xtc")
    assert there.sequence == topology.sequence
    assert made.n_frames == FRAMES
    atoms = made.xyz[:, order]
    wanted = mdtraj.Trajectory(positions, topology.to_mdtraj())
    found = mdtraj.Trajectory(atoms, topology.to_mdtraj())
    deviation = [mdtraj.rmsd(found[k], wanted[k])[0] for k in range(FRAMES)]
    assert np.mean(deviation) < limit
    assert (np.abs(link_lengths(topology, atoms) - 0.133) < 0.02).all()
    assert (np.abs(omega_angles(topology, atoms)) > np.pi / 2).all()
    if name == "backbone":
        kept = np.isin(topology.atom_names, ("N", "CA", "C", "O"))
        gap = np.abs(atoms[:, kept] - positions[:, kept])
        assert gap.max() < 0.0011  # XTC rounds to 0.001 nm twice
