"""Residues, topology and internal coordinates on real structures."""

import dataclasses

import gemmi
import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.protein.internal import (
    dihedral,
    internal_from_positions,
    place_atoms,
    positions_from_internal,
    proline_closure,
)
from hpcbackmap.protein.named_residues import (
    NamedResidue,
    topology_from_mdtraj,
    topology_from_residues,
)
from hpcbackmap.protein.peptide import link_angles
from hpcbackmap.protein.residues import RESIDUES, standard_atom_name, standard_residue_name
from hpcbackmap.protein.topology import Topology, topology_from_sequence
from hpcbackmap.protein.zmatrix import build_zmatrix
from hpcbackmap.runtime.errors import InputError


def read(path):
    frame = mdtraj.load(str(path))
    topology, index, dropped = topology_from_mdtraj(frame.topology, frame.xyz[0], path.name)
    return topology, frame.xyz[:, index].astype(np.float64), dropped


def read_quickly(path):
    """The same by Gemmi, which reads hundreds of files in a second."""
    model, residues, places = gemmi.read_structure(str(path))[0], [], []
    for number, chain in enumerate(model):
        for residue in chain.first_conformer():
            atoms = []
            for atom in residue.first_conformer():
                atoms.append((atom.name, atom.element.name, len(places)))
                places.append(atom.pos.tolist())
            identity = residue.seqid.num, residue.seqid.icode.strip()
            residues.append(NamedResidue(residue.name, *identity, number, atoms))
    positions = np.array(places) / 10
    chain_ids = [chain.name for chain in model]
    topology, index, _ = topology_from_residues(residues, chain_ids, positions, path.name)
    return topology, positions[None, index]


def round_trip(topology: Topology, positions: torch.Tensor) -> torch.Tensor:
    z = build_zmatrix(topology)
    anchors = [torch.from_numpy(a) for a in (z.parent, z.grandparent, z.great)]
    internal = internal_from_positions(positions, *anchors)
    trace = positions[..., topology.ca_index, :]
    return positions_from_internal(
        trace, internal, *anchors, torch.from_numpy(z.level), np.bincount(z.level)
    )


@pytest.mark.trains
def test_round_trip_is_exact_on_every_chain(data_dir):
    worst = 0.0
    paths = sorted((data_dir / "static_bm5").glob("*.pdb.gz"))
    assert len(paths) > 300
    for path in paths:
        topology, positions = read_quickly(path)
        positions = torch.from_numpy(positions)
        worst = max(worst, float((round_trip(topology, positions) - positions).abs().max()))
    assert worst < 1e-5, "nm; 1e-4 Angstrom"


def test_round_trip_over_frames_chains_and_breaks_has_gradients(data_dir):
    topology, positions, _ = read(data_dir / "nmr" / "1sb0_nmr.pdb.gz")
    assert topology.chain_ids == ("A", "B")
    assert topology.bonded.count(False) == 2
    broken = list(topology.bonded)
    broken[40] = False
    topology = Topology.from_dict({**topology.to_dict(), "bonded": broken})
    frames = torch.from_numpy(positions[:5]).reshape(5, 1, -1, 3).requires_grad_()
    rebuilt = round_trip(topology, frames)
    assert float((rebuilt - frames).abs().max()) < 1e-8
    (gradient,) = torch.autograd.grad(rebuilt.square().sum(), frames)
    assert torch.isfinite(gradient).all()


def test_float32_round_trip(data_dir):
    topology, positions, _ = read(data_dir / "p38" / "p38_md_top.pdb")
    positions = torch.from_numpy(positions).float()
    assert float((round_trip(topology, positions) - positions).abs().max()) < 5e-5


def test_dihedral_sign_is_iupac(data_dir):
    frame = mdtraj.load(str(data_dir / "trpcage_tc5b" / "tc5b_md_top.pdb"))
    quads, expected = mdtraj.compute_phi(frame)
    points = torch.from_numpy(frame.xyz[0].astype(np.float64))
    found = dihedral(*(points[quads[:, i]] for i in range(4)))
    np.testing.assert_allclose(found, expected[0], atol=1e-4)


def test_every_standard_residue_is_complete():
    heavy = {"ALA": 5, "ARG": 11, "ASN": 8, "ASP": 8, "CYS": 6, "GLN": 9, "GLU": 9, "GLY": 4, "HIS": 10,
             "ILE": 8, "LEU": 8, "LYS": 9, "MET": 8, "PHE": 11, "PRO": 7, "SER": 6, "THR": 7, "TRP": 14,
             "TYR": 12, "VAL": 7}  # fmt: skip
    rings = {"HIS": 1, "PHE": 1, "PRO": 1, "TRP": 2, "TYR": 1}
    for name, template in RESIDUES.items():
        assert len(template.atoms) == heavy[name]
        extra = rings.get(name, 0) + (name == "PRO")
        assert len(template.bonds) == heavy[name] - 1 + extra - (name == "PRO")
        for row in template.placements:
            assert (row.parent, row.atom) in template.bonds, (
                "placed from the atom that it is bonded to"
            )


@pytest.mark.trains
def test_bonds_agree_with_mdtraj(data_dir):
    for name in ("ubiquitin/2k39_nmr.pdb.gz", "nmr/1yuf_nmr.pdb.gz"):
        topology, positions, _ = read(data_dir / name)
        reference = topology.to_mdtraj()
        assert reference.n_atoms == topology.n_atoms
        frame = mdtraj.Trajectory(positions[:1], reference)
        bare = topology.to_mdtraj()
        bare._bonds = []
        bare.create_standard_bonds()
        bare.create_disulfide_bonds(frame.xyz[0])
        pairs = {tuple(sorted((a.index, b.index))) for a, b in bare.bonds}
        assert pairs == {tuple(map(int, pair)) for pair in topology.bonds}


def test_disulphides_are_found(data_dir):
    topology, _, _ = read(data_dir / "nmr" / "1yuf_nmr.pdb.gz")
    assert topology.disulphides == ((7, 20), (15, 31), (33, 42))


def test_names_of_other_force_fields():
    names = {"HIE": "HIS", "HSP": "HIS", "CYX": "CYS", "NALA": "ALA", "CHID": "HIS", "GLH": "GLU"}
    assert {name: standard_residue_name(name) for name in names} == names
    assert standard_residue_name("SEP") is None
    assert standard_residue_name("NAG") is None
    assert standard_atom_name("ILE", "CD") == "CD1"
    assert standard_atom_name("LYS", "CD") == "CD"
    assert standard_atom_name("ALA", "OT2") == "OXT"
    assert standard_atom_name("ALA", "OT1") == "O"


def test_missing_atom_and_unknown_residue_are_named(data_dir):
    frame = mdtraj.load(str(data_dir / "trpcage_tc5b" / "tc5b_md_top.pdb"))
    keep = [
        a.index for a in frame.topology.atoms if not (a.residue.resSeq == 6 and a.name == "CZ2")
    ]
    cut = frame.atom_slice(keep)
    with pytest.raises(InputError, match=r"x\.pdb: residue TRP6 .* CZ2"):
        topology_from_mdtraj(cut.topology, cut.xyz[0], "x.pdb")
    frame.topology.residue(3).name = "XYZ"
    with pytest.raises(InputError, match="unknown residue XYZ4"):
        topology_from_mdtraj(frame.topology, frame.xyz[0], "x.pdb")


def test_hydrogens_are_counted_and_order_does_not_matter(data_dir):
    frame = mdtraj.load(str(data_dir / "trpcage_tc5b" / "tc5b_md_top.pdb"))
    topology, index, dropped = topology_from_mdtraj(frame.topology, frame.xyz[0], "x.pdb")
    assert dropped == {"hydrogen": 150}
    assert topology.n_atoms == 154
    assert topology.has_oxt[-1]
    names = [frame.topology.atom(i).name for i in index]
    assert tuple(names) == topology.atom_names


def test_calpha_file_gives_the_whole_sequence(data_dir):
    frame = mdtraj.load(str(data_dir / "nmr" / "1sb0_nmr.pdb.gz"))[0]
    trace = frame.atom_slice(frame.topology.select("name CA"))
    topology, index, _ = topology_from_mdtraj(trace.topology, trace.xyz[0], "x.pdb")
    assert len(index) == topology.n_residues == 112
    assert topology.has_oxt.count(True) == 2
    assert topology.bonded.count(False) == 2


def test_topology_survives_json_and_sequence_building():
    topology = topology_from_sequence(["ACDEFGHIKLMNPQRSTVWY", "GG"])
    again = Topology.from_dict(topology.to_dict())
    assert again == topology
    assert again.digest == topology.digest
    assert topology.n_atoms == sum(len(RESIDUES[n].atoms) for n in topology.sequence) + 2
    with pytest.raises(InputError, match="position 2: 'X'"):
        topology_from_sequence(["AX"])
    with pytest.raises(InputError, match="three C-alpha"):
        build_zmatrix(topology_from_sequence(["GG"]))


def test_proline_ring_closes():
    generator = torch.Generator().manual_seed(0)
    points = [[0.0, 0, 0], [0.1466, 0, 0], [0.18, 0.148, 0.0]]
    n, ca, cb = (torch.tensor([point]).double().expand(50, 3) for point in points)
    distance, theta, bond = (torch.full((50,), v).double() for v in (0.1473, 1.95, 0.1503))
    true_phi = 0.5 * torch.rand(50, generator=generator).double() - 0.25
    cd = place_atoms(n, ca, cb, torch.stack([distance, theta, true_phi], -1))
    towards = torch.tensor([0.6, 0.4, 0.3]) + 0.1 * torch.randn(50, 3, generator=generator)
    cg = cd + bond.unsqueeze(-1) * torch.nn.functional.normalize(towards.double(), dim=-1)
    phi = proline_closure(n, ca, cb, cg, distance, theta, bond)
    closed = place_atoms(n, ca, cb, torch.stack([distance, theta, phi], -1))
    np.testing.assert_allclose((closed - cg).norm(dim=-1), bond, atol=1e-7)
    assert bool((phi.abs() <= true_phi.abs() + 1e-6).all()), "the flatter of the two rings"


def test_peptide_template_keeps_the_bond():
    """For any C-alpha distance that a chain can have, the planar link keeps C-N at 0.1329 nm."""
    length = torch.linspace(0.365, 0.39, 20, dtype=torch.float64)
    for sample, side in ((length, -1.0), (torch.linspace(0.28, 0.31, 9, dtype=torch.float64), 1.0)):
        at_c, at_n, cis = link_angles(sample)
        assert bool((cis == (side > 0)).all())
        c = torch.stack([0.1525 * at_c.cos(), 0.1525 * at_c.sin()], -1)
        n = torch.stack([sample - 0.1458 * at_n.cos(), side * 0.1458 * at_n.sin()], -1)
        np.testing.assert_allclose((c - n).norm(dim=-1), 0.1329, atol=2e-5)


def test_repeated_residue_numbers_are_counted_on_when_written(tmp_path):
    """Insertion codes (10, 10A) get lost in most files; two residues of one number would be read as one."""
    plain = topology_from_sequence(["GGGA", "AAA"])
    topology = dataclasses.replace(plain, residue_numbers=(9, 10, 10, 11, 5, 6, 7))
    top = topology.to_mdtraj()
    assert [residue.resSeq for residue in top.residues] == [9, 10, 11, 12, 5, 6, 7]
    frame = mdtraj.Trajectory(np.zeros((1, top.n_atoms, 3), dtype=np.float32), top)
    frame.save_pdb(str(tmp_path / "a.pdb"))
    assert mdtraj.load(str(tmp_path / "a.pdb")).n_residues == 7


def test_selenomethionine_counts_as_methionine():
    expected = topology_from_sequence(["AMG"])
    top = expected.to_mdtraj()
    methionine = top.residue(1)
    methionine.name = "MSE"
    selenium = next(atom for atom in methionine.atoms if atom.name == "SD")
    selenium.name, selenium.element = "SE", mdtraj.element.selenium
    found, index, _ = topology_from_mdtraj(top, np.zeros((top.n_atoms, 3)), "x.pdb")
    assert found.sequence == expected.sequence
    assert found.atom_names == expected.atom_names
    assert index.tolist() == list(range(top.n_atoms))
