"""What files call their particles: residues, molecules, numbers and letters as they stand there."""

import gzip

import mdtraj
import numpy as np
import pytest

from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.frames import open_files
from hpcbackmap.trajectories.read_particles import read_particles
from hpcbackmap.trajectories.units import fitting_unit


@pytest.fixture(scope="module")
def calphas(example_dir):
    """Lines of the C-alpha atoms of the example."""
    lines = (example_dir / "trpcage_top.pdb").read_text().splitlines()
    return [line for line in lines if line.startswith("ATOM") and line[12:16].strip() == "CA"]


def place(line):
    return np.array([float(line[k : k + 8]) for k in (30, 38, 46)])


def relabelled(lines, labels, chain="A", shift=(0.0, 0.0, 0.0)):
    """Lines with other numbers (four columns and an insertion code), moved (Angstrom; a number: along z)."""
    shift = np.array([0.0, 0.0, shift]) if np.isscalar(shift) else np.asarray(shift)
    return [
        f"{line[:21]}{chain}{label}{line[27:30]}"
        + "".join(f"{value:8.3f}" for value in place(line) + shift)
        + line[54:]
        for line, label in zip(lines, labels, strict=True)
    ]


def next_to(calphas):
    """The shift that puts the beginning of a copy a bond away from the end of the one before it."""
    return place(calphas[-1]) - place(calphas[0]) + [0.0, 0.0, 3.8]


def write(path, lines):
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def numbers(first, count=20):
    return [f"{first + i:4d} " for i in range(count)]


def test_copies_with_one_letter_are_molecules(calphas, tmp_path):
    """Numbers that start again; the end of each lies where the next begins, as in a crowded box."""
    lines = []
    for copy in range(200):
        lines += relabelled(calphas, numbers(-4), "S", shift=copy * next_to(calphas))
    found = read_particles(write(tmp_path / "copies.pdb", lines))
    assert len(found.chains) == 200
    assert {chain.id for chain in found.chains} == {"S"}
    assert [row.number for row in found.residues[20:40]] == list(range(-4, 16))
    assert {row.chain for row in found.residues[20:40]} == {1}


def test_numbers_that_go_on_do_not_join_molecules(calphas, tmp_path):
    """As GROMACS and VMD write them: no letter, no TER, one numbering, molecules far apart."""
    lines = relabelled(calphas, numbers(1), " ") + relabelled(calphas, numbers(21), " ", shift=60)
    found = read_particles(write(tmp_path / "on.pdb", lines))
    assert len(found.chains) == 2
    assert found.residues[20].number == 21
    joined = read_particles(write(tmp_path / "on.pdb", lines), molecule=10)
    assert len(joined.chains) == 4
    with pytest.raises(InputError, match=r"--molecule 7: 5 residues are left over from \w+ 36 on"):
        read_particles(write(tmp_path / "on.pdb", lines), molecule=7)


def test_lipids_and_nucleotides_are_no_molecules_of_so_many_residues(calphas, tmp_path):
    lines = relabelled(calphas, numbers(1)) + relabelled(calphas, numbers(21), shift=60)
    lines += [
        f"ATOM    900  P   {name:4}L{number:4d}    {9 * number:8.3f}  50.000  50.000"
        for number, name in enumerate(["POPC", "POPC", "POPC", "DA", "DC"], start=1)
    ]
    found = read_particles(write(tmp_path / "beside.pdb", lines), molecule=20)
    chains = [row.chain for row in found.residues]
    assert [chains.count(chain) for chain in (0, 1)] == [20, 20]
    assert {row.name for row in found.residues if row.chain > 1} == {"POPC", "DA", "DC"}


def test_one_torn_frame_of_several_makes_no_molecule(calphas, tmp_path):
    lines = []
    for model in range(5):
        shifts = [0.0 if model else 40.0 * (i > 9) for i in range(20)]
        lines += [
            "MODEL",
            *(
                relabelled([line], [f"{i + 1:4d} "], shift=shifts[i])[0]
                for i, line in enumerate(calphas)
            ),
            "ENDMDL",
        ]
    assert len(read_particles(write(tmp_path / "torn.pdb", lines)).chains) == 1


def test_insertion_codes_stay_and_numbering_may_jump_inside_a_chain(calphas, tmp_path):
    kabat = (
        numbers(95, 6) + [f" 100{letter}" for letter in "ABCD"] + numbers(1001, 5) + numbers(101, 5)
    )
    found = read_particles(write(tmp_path / "h.pdb", relabelled(calphas, kabat, "H")))
    assert len(found.chains) == 1, "bonded, whatever the numbers do"
    assert [f"{row.number:4d}{row.insertion or ' '}" for row in found.residues] == kabat
    assert found.label(6) == f"H:{found.residues[6].name}100A"


def test_numbers_twice_are_said_and_waters_are_not_cis(calphas, tmp_path):
    lost = numbers(95, 6) + [" 100 "] * 4 + numbers(101, 10)
    waters = [
        f"HETATM  9{k:02d}  O   HOH A {200 + k}    {60 + 3 * k:8.3f}   0.000   0.000  1.00  0.00"
        for k in range(20)
    ]
    found = read_particles(write(tmp_path / "h.pdb", [*relabelled(calphas, lost), *waters]))
    (word,) = found.words
    assert f"{found.label(6)} has the number of a residue before it" in word
    assert "renumbered" in word


def test_numbers_beyond_their_columns(calphas, tmp_path):
    labels = numbers(9993, 7) + ["A000 ", "A001 ", "A002 "] + ["   0 ", "   1 "] * 5
    wide = read_particles(write(tmp_path / "h36.pdb", relabelled(calphas[:10], labels[:10])))
    assert [row.number for row in wide.residues] == list(range(9993, 10003))
    wrapped = relabelled(calphas, [*numbers(9990, 10), *numbers(0, 10)])
    found = read_particles(write(tmp_path / "wrap.pdb", wrapped))
    assert len(found.chains) == 1
    assert found.residues[-1].number == 10009


def test_backward_numbers_are_said(calphas, tmp_path):
    lines = relabelled(calphas, [f"{20 - i:4d} " for i in range(20)])
    found = read_particles(write(tmp_path / "back.pdb", lines))
    assert len(found.chains) == 1
    assert any("run backwards, from 20 to 1" in word for word in found.words)


def test_the_more_occupied_location_is_read(calphas, tmp_path):
    lines = list(calphas)
    a, b = (f"{lines[4][:16]}{letter}{lines[4][17:]}" for letter in "AB")
    far = f"{b[:30]}  99.000{b[38:56]}0.60{b[60:]}"
    lines[4:5] = [f"{a[:56]}0.40{a[60:]}", far]
    found = read_particles(write(tmp_path / "alt.pdb", lines))
    assert found.n_atoms == 20
    assert found.positions[4, 0] == pytest.approx(9.9)
    assert "1 atoms are alternate locations" in found.words[0]


def test_sites_listed_after_their_molecule_go_to_its_residues(calphas, tmp_path):
    """Backbone beads of all residues, then the virtual sites of a Gō model, for two molecules."""
    lines = []
    for copy in range(2):
        for name in ("BB", "CA"):
            here = [line.replace(" CA ", f" {name} ") for line in calphas]
            lines += relabelled(here, numbers(1), shift=30 * copy)
    found = read_particles(write(tmp_path / "go.pdb", lines))
    assert len(found.residues) == 40
    assert len(found.chains) == 2
    assert [found.names[i] for i in found.members()[25]] == ["BB", "CA"]


def test_suffixes_in_any_case_and_gzip(calphas, tmp_path):
    text = "\n".join([*calphas, "END", ""])
    for name in ("A.PDB", "pdb1abc.ent", "b.ENT.GZ", "c.pdb.gz"):
        path = tmp_path / name
        path.write_bytes(
            gzip.compress(text.encode()) if name.lower().endswith("gz") else text.encode()
        )
        assert len(read_particles(path).residues) == 20


def test_disulphides_that_a_file_names(calphas, tmp_path):
    lines = [
        "SSBOND   1 CYS A    3    CYS A   17                          1555   1555  2.03",
        *calphas,
    ]
    assert read_particles(write(tmp_path / "s.pdb", lines)).disulphides == [(2, 16)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda line: f"{line[:30]}  1.2.3 {line[38:]}",
            r"line 3: '1\.2\.3' stands where a coordinate",
        ),
        (lambda line: line[:40], "line 3: ends before the coordinates do"),
        (lambda line: f"{line[:22]}  x1{line[26:]}", "line 3: 'x1' is no residue number"),
    ],
)
def test_a_bad_line_is_named(calphas, tmp_path, change, reason):
    lines = [change(line) if i == 2 else line for i, line in enumerate(calphas)]
    with pytest.raises(InputError, match=rf"bad.pdb: {reason}"):
        read_particles(write(tmp_path / "bad.pdb", lines))


def test_stars_are_a_coordinate_that_is_no_number(calphas, tmp_path):
    """What a program writes where a number does not fit: that frame is bad, not the file."""
    lines = [
        f"{line[:30]}********{line[38:]}" if i == 2 else line for i, line in enumerate(calphas)
    ]
    found = read_particles(write(tmp_path / "stars.pdb", lines))
    assert np.isnan(found.positions[2]).any()
    assert np.isfinite(np.delete(found.positions, 2, axis=0)).all()


def test_models_in_another_order_are_refused(calphas, tmp_path):
    other = [*calphas[:5], calphas[6], calphas[5], *calphas[7:]]
    lines = ["MODEL        1", *calphas, "ENDMDL", "MODEL        2", *other, "ENDMDL"]
    with pytest.raises(
        InputError, match=r"line 29: atom 6 of model 2 is CA of A:LEU7, of the first"
    ):
        read_particles(write(tmp_path / "order.pdb", lines))


def test_a_molecule_far_from_the_origin_is_moved_before_it_is_rounded(calphas, tmp_path):
    """GRO has columns as wide as it takes; 10^6 nm away, 32-bit numbers are 0.06 nm apart."""
    lines = ["far away", "   20"]
    near = np.array([[float(line[k : k + 8]) / 10 for k in (30, 38, 46)] for line in calphas])
    for i, (line, place) in enumerate(zip(calphas, near + 1e6, strict=True)):
        x, y, z = (f"{value:14.3f}" for value in place)
        lines.append(f"{i + 1:5d}{line[17:20]:<5}   CA{i + 1:5d}{x}{y}{z}")
    path = tmp_path / "far.gro"
    path.write_text("\n".join([*lines, "   0.0   0.0   0.0", ""]))
    found = read_particles(path)
    steps = np.linalg.norm(np.diff(near, axis=0), axis=1)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(found.positions, axis=0), axis=1), steps, atol=2e-3
    )
    assert "nm from the origin" in found.words[0]


def test_binary_numbers_too_far_from_the_origin_are_refused(example_dir, tmp_path):
    """What is rounded in the file stays rounded; 2000 nm away it does not matter yet."""

    loaded = mdtraj.load(str(example_dir / "trpcage_top.pdb"))
    near = loaded.xyz[0].copy()
    for away, fault in ((2000, None), (1e6, "1e\\+06 nm from the origin, where .* 0.062 nm apart")):
        loaded.xyz = near[None] + np.float32(away)
        loaded.save(str(tmp_path / "far.trr"))
        top = str(example_dir / "trpcage_top.pdb")
        if fault:
            with pytest.raises(InputError, match=f"far.trr: .*{fault}"):
                read_particles(tmp_path / "far.trr", top)
            continue
        found = read_particles(tmp_path / "far.trr", top)
        np.testing.assert_allclose(found.positions - found.positions[0], near - near[0], atol=3e-4)


def test_a_topology_of_more_particles_says_which_of_them_fit(example_dir, tmp_path):
    top = example_dir / "trpcage_top.pdb"
    loaded = mdtraj.load(str(top))
    loaded.atom_slice(loaded.topology.select("name CA")).save(str(tmp_path / "ca.dcd"))
    with pytest.raises(
        InputError, match=r"20 atoms, the topology has \d+ \(.*trpcage_top.pdb\); its CA atoms"
    ):
        read_particles(tmp_path / "ca.dcd", str(top))
    loaded.atom_slice(np.arange(7)).save(str(tmp_path / "seven.dcd"))
    with pytest.raises(InputError, match=r"7 atoms, the topology has \d+ \(.*trpcage_top.pdb\)$"):
        read_particles(tmp_path / "seven.dcd", str(top))


def shown(lines, path):
    return " ".join(read_particles(write(path, lines)).words)


def test_places_that_cannot_be_are_said(calphas, tmp_path):
    """Two residues at one place, chains inside each other, every neighbour as at a cis peptide bond."""
    assert shown(calphas, tmp_path / "a.pdb") == ""
    twice = [*calphas[:10], calphas[10][:30] + calphas[9][30:54] + calphas[10][54:], *calphas[11:]]
    words = shown(twice, tmp_path / "b.pdb")
    assert "1 pair(s) of residues stand at one place" in words
    assert "A:GLY10 and A:GLY11 0 nm" in words
    inside = calphas + relabelled(calphas, numbers(1), "B", shift=0.4)
    assert "20 pair(s)" in (words := shown(inside, tmp_path / "c.pdb"))
    assert "chains inside" in words
    zigzag = [
        f"{line[:30]}{2.7 * i:8.3f}{0.9 * (i % 2):8.3f}{0.0:8.3f}{line[54:]}"
        for i, line in enumerate(calphas)
    ]
    assert "19 of 19 neighbouring C-alpha atoms are 0.25 to 0.33 nm" in shown(
        zigzag, tmp_path / "d.pdb"
    )


def test_modified_residues_and_strangers_are_named(calphas, tmp_path):
    names = {3: "SEP", 5: "MSE", 8: "HYP", 11: "HSE"}
    lines = [
        f"{line[:17]}{names.get(i, line[17:20])}{line[20:]}"
        for i, line in enumerate(calphas, start=1)
    ]
    strangers = [
        f"HETATM  9{k:02d} {atom:4} {name} X{900 + k:4d}    {90 + 9 * k:8.3f}   0.000   0.000  1.00  0.00"
        for k, (atom, name) in enumerate(
            [(" O  ", "HOH"), ("NA  ", " NA"), (" P  ", " DA"), (" C1 ", "NAG")]
        )
    ]
    found = read_particles(write(tmp_path / "m.pdb", [*lines, "TER", *strangers]))
    assert found.modified() == [
        "1 SEP built as SER (A:SEP3)", "1 MSE built as MET (A:MSE5)", "1 HYP built as PRO (A:HYP8)"
    ]  # fmt: skip
    topology, index, dropped = found.topology(found.positions)
    assert len(index) == 20
    assert topology.sequence[2] == "SER"
    assert topology.sequence[10] == "HIS"
    assert dropped == {"water HOH": 1, "ion NA": 1, "DNA DA": 1, "sugar NAG": 1}
    unknown = [
        line.replace(line[17:20], "XYZ") if i == 4 else line for i, line in enumerate(calphas)
    ]
    found = read_particles(write(tmp_path / "u.pdb", unknown))
    with pytest.raises(InputError, match=r"unknown residue XYZ5 in chain A; .* standard parent"):
        found.topology(found.positions)


def test_copies_that_touch_are_known_by_the_one_that_does_not(calphas, tmp_path):
    """One numbering, one letter; only the last copy stands apart."""
    lines = []
    for copy, shift in enumerate((0, 1, 2, 9)):
        lines += relabelled(calphas, numbers(1 + 20 * copy), shift=shift * next_to(calphas))
    found = read_particles(write(tmp_path / "touch.pdb", lines))
    assert len(found.chains) == 4
    assert found.residues[-1].number == 80


def test_copies_that_nothing_parts_are_said(calphas, tmp_path):
    lines = []
    for copy in range(3):
        lines += relabelled(calphas, numbers(1 + 20 * copy), shift=copy * next_to(calphas))
    found = read_particles(write(tmp_path / "one.pdb", lines))
    assert len(found.chains) == 1
    (words,) = (words for words in found.words if "times over" in words)
    assert "20 residues 3 times over" in words
    assert "--molecule 20" in words
    parted = read_particles(write(tmp_path / "three.pdb", lines), molecule=20)
    assert len(parted.chains) == 3
    assert not any("times over" in words for words in parted.words)


def test_chains_whose_residues_alternate_are_whole(calphas, tmp_path):
    """A1 B1 A2 B2 …; a chain of the same letter far away, whose numbers happen to go on, is another one."""
    first = relabelled(calphas, numbers(1), "A")
    second = relabelled(calphas, numbers(1), "B", shift=30.0)
    third = relabelled(calphas, numbers(21), "A", shift=90.0)
    lines = [line for pair in zip(first, second, strict=True) for line in pair]
    found = read_particles(write(tmp_path / "tangled.pdb", lines + third))
    assert [chain.id for chain in found.chains] == ["A", "B", "A"]
    assert [row.number for row in found.residues] == [*range(1, 21)] * 2 + [*range(21, 41)]
    assert found.residue[:4].tolist() == [0, 20, 1, 21]
    plain = read_particles(write(tmp_path / "plain.pdb", first + second))
    np.testing.assert_array_equal(found.steps[:40], plain.steps)


def test_an_ion_between_residues_parts_no_chain(calphas, tmp_path):
    lines = relabelled(calphas, numbers(1))
    ion = "HETATM  900 CA    CA A 900      90.000  90.000  90.000  1.00  0.00          CA  "
    found = read_particles(write(tmp_path / "ion.pdb", [*lines[:9], ion, *lines[9:]]))
    assert [row.chain for row in found.residues if row.number < 900] == [0] * 20
    assert len(found.chains) == 2


def test_another_unit_of_length(calphas, tmp_path):
    lines = [
        line[:30] + "".join(f"{float(line[k : k + 8]) / 10:8.3f}" for k in (30, 38, 46)) + line[54:]
        for line in calphas
    ]
    path = write(tmp_path / "nm.pdb", lines)
    expected = read_particles(write(tmp_path / "a.pdb", calphas)).positions
    for unit in ("nm", "1.0"):
        found = read_particles(path, unit=unit)
        np.testing.assert_allclose(found.positions, expected, atol=6e-4)
        (frames,) = [open_files([str(path)], found, unit).read_at([0]).positions]
        np.testing.assert_array_equal(frames[0], found.positions)
    steps = read_particles(path).steps[1:]
    assert fitting_unit(str(path), steps, 0.15, 1.2) == "nm"
    assert fitting_unit("x.xtc", 100 * steps, 0.15, 1.2) == "A"
    with pytest.raises(ConfigError, match="--unit inch: give nm, A"):
        read_particles(path, unit="inch")
