"""--keep-others: a complex stays a complex."""

import json

import gemmi
import mdtraj
import numpy as np
import pytest

import hpcbackmap
from hpcbackmap.backmapping.request import Request, check_request
from hpcbackmap.runtime.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def complex_file(example_run, tmp_path_factory):
    """Two frames: the example's C-alpha atoms and a ligand in chain A, two nucleotides in chain B, water."""
    frames = example_run[:2]
    trace = frames.atom_slice(frames.topology.select("name CA"))
    lines = []
    for number, xyz in enumerate(10 * trace.xyz):
        lines.append(f"MODEL     {number + 1:4d}")
        rows = [
            ("ATOM", "CA", residue.name, "A", residue.resSeq, point, "C")
            for residue, point in zip(trace.topology.residues, xyz, strict=True)
        ]
        rows += [("ATOM", "P", "DA", "B", 5 + i, xyz[i] + [0, 0, 12 + i], "P") for i in range(2)]
        rows += [("ATOM", "C1'", "DA", "B", 5 + i, xyz[i] + [0, 2, 12 + i], "C") for i in range(2)]
        rows += [("HETATM", f"C{i}", "LIG", "A", 301, xyz[4] + [8, i, 0], "C") for i in (1, 2)]
        rows += [("HETATM", "O", "HOH", "W", 401, xyz[9] + [0, 9, 0], "O")]
        for serial, (kind, name, residue, chain, seq, point, element) in enumerate(rows, start=1):
            place = "".join(f"{value:8.3f}" for value in point)
            lines.append(
                f"{kind:<6}{serial:5d} {f' {name}':<4} {residue:>3} {chain}{seq:4d}    {place}  1.00  0.00"
                f"          {element:>2}"
            )
        lines.append("ENDMDL")
    path = tmp_path_factory.mktemp("complex") / "complex.pdb"
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def kept_of(path):
    """(model, chain, number, residue, atom) and place of what is no protein."""
    found = {}
    for number, model in enumerate(gemmi.read_structure(str(path))):
        for chain in model:
            for residue in chain:
                for atom in residue:
                    if residue.name in ("DA", "LIG", "HOH"):
                        key = (number, chain.name, residue.seqid.num, residue.name, atom.name)
                        found[key] = np.array(atom.pos.tolist())
    return found


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_what_is_no_protein_stays_where_and_what_it_was(complex_file, tmp_path, suffix):
    output = tmp_path / f"atoms{suffix}"
    hpcbackmap.backmap(complex_file, output=output, keep_others=True, hydrogens=True)
    given, made = kept_of(complex_file), kept_of(output)
    assert given.keys() == made.keys()
    assert len(given) == 2 * 7
    for key, place in given.items():
        np.testing.assert_allclose(made[key], place, atol=2e-3)
    run = json.loads((tmp_path / f"atoms{suffix}.json").read_text())["run"]
    assert run["passed_through"] == {"DA": 4, "LIG": 2, "HOH": 1}
    assert not run["left_out"]


def test_the_protein_is_the_one_that_is_made_without(complex_file):
    (alone,) = hpcbackmap.backmap(complex_file, seed=3)
    (beside,) = hpcbackmap.backmap(complex_file, seed=3, keep_others=True)
    assert beside.n_atoms == alone.n_atoms + 7
    assert np.array_equal(beside.xyz[:, : alone.n_atoms], alone.xyz)


def test_a_chain_comes_as_its_image_nearest_to_the_protein(complex_file):
    """Nucleotides that the box has put on its other side."""
    frames = mdtraj.load(complex_file)
    frames.unitcell_vectors = np.repeat(np.diag([6.0, 6.0, 7.0])[None], 2, axis=0).astype(
        np.float32
    )
    away = frames[:]
    nucleotides = frames.topology.select("resname DA")
    away.xyz[:, nucleotides] += [6.0, 0.0, -7.0]
    near, back = (
        hpcbackmap.backmap(each, representation="ca", keep_others=True, mode=True)[0]
        for each in (frames, away)
    )
    np.testing.assert_allclose(back.xyz, near.xyz, atol=2e-5)


def test_strict_has_nothing_to_refuse_and_what_cannot_be_is_said(complex_file, tmp_path):
    hpcbackmap.backmap(complex_file, keep_others=True, strict=True)
    with pytest.raises(InputError, match="--strict"):
        hpcbackmap.backmap(complex_file, strict=True)
    with pytest.raises(ConfigError, match="store holds the protein alone"):
        check_request(Request(output=tmp_path / "a.zarr", keep_others=True), [str(complex_file)])


@pytest.mark.parametrize("more", [{"hydrogens": True}, {"keep_others": True}])
def test_a_topology_that_an_earlier_run_left_is_no_other_one(complex_file, tmp_path, more):
    """With hydrogens and with what stands beside; that of another protein is."""
    output, topology = tmp_path / "atoms.xtc", tmp_path / "atoms_top.pdb"
    hpcbackmap.backmap(complex_file, output=output, **more)
    before = topology.read_bytes()
    output.unlink()
    hpcbackmap.backmap(complex_file, output=output, **more)
    assert topology.read_bytes() == before
    output.unlink()
    lines = before.splitlines(keepends=True)
    topology.write_bytes(b"".join(line for line in lines if line[22:26] != b"   7"))
    with pytest.raises(ConfigError, match="another topology"):
        hpcbackmap.backmap(complex_file, output=output, **more)
