"""Every format that a simulation writes: names, frames, cells and times, in bounded memory."""

import gzip
import struct
import subprocess
import sys

import numpy as np
import pytest

from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.read_particles import read_particles
from hpcbackmap.trajectories.reader import describe_file, read_frames

MMCIF_TAGS = (
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
    "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "occupancy", "auth_seq_id", "auth_asym_id",
    "pdbx_PDB_model_num",
)  # fmt: skip


@pytest.fixture(scope="module")
def calpha(example_run):
    loaded = example_run[:6]
    return loaded.atom_slice(loaded.topology.select("name CA"))


def frames_of(path, topology, start=0, stop=6, atoms=None):
    pieces = list(read_frames(str(path), topology, start, stop, atoms=atoms))
    return np.concatenate([piece[0] for piece in pieces])


def dump(path, calpha, columns, values, box, flags="pp pp pp"):
    """values(frame positions in Angstrom) gives the columns after id; particles in another order each time."""
    order = np.random.default_rng(1)
    with open(path, "w") as file:
        for step, frame in enumerate(calpha.xyz):
            file.write(f"ITEM: TIMESTEP\n{1000 * step}\nITEM: NUMBER OF ATOMS\n{len(frame)}\n")
            file.write(f"ITEM: BOX BOUNDS {flags}\n{box}\nITEM: ATOMS id {columns}\n")
            table = values(10 * frame.astype(np.float64))
            for i in order.permutation(len(frame)):
                file.write(f"{i + 1} " + " ".join(map(str, table[i])) + "\n")
    return path


def test_lammps_dumps_plain_scaled_and_with_images(calpha, tmp_path):
    size, low = np.array([50.0, 60.0, 70.0]), np.array([-25.0, -30.0, -35.0])
    box = "\n".join(f"{a} {a + b}" for a, b in zip(low, size, strict=True))

    def scaled(frame):
        return np.hstack([np.ones((len(frame), 1)), (frame - low) / size])

    def images(frame):
        image = np.floor((frame - low) / size)
        return np.hstack([frame - image * size, image]).tolist()

    kinds = {
        "plain": ("xu yu zu", lambda frame: frame),
        "scaled": ("type xs ys zs", scaled),
        "images": ("x y z ix iy iz", images),
    }
    for name, (columns, values) in kinds.items():
        path = dump(tmp_path / f"{name}.lammpstrj", calpha, columns, values, box)
        n_frames, first = describe_file(str(path), calpha.topology)
        assert n_frames == 6
        np.testing.assert_allclose(first, calpha.xyz[0], atol=1e-5)
        ((positions, times, cells),) = read_frames(str(path), calpha.topology, 2, 6)
        np.testing.assert_allclose(positions, calpha.xyz[2:], atol=1e-5)
        assert times.tolist() == [2000, 3000, 4000, 5000]
        np.testing.assert_allclose(cells[0], np.diag(size / 10))


def test_a_tilted_lammps_box(calpha, tmp_path):
    """Bounds of a tilted box are those of the box around it (LAMMPS manual, "Triclinic")."""
    edges = np.array([[50.0, 0, 0], [-10.0, 60.0, 0], [5.0, -8.0, 70.0]])
    xy, xz, yz = edges[1, 0], edges[2, 0], edges[2, 1]
    tilt = [min(0, xy, xz, xy + xz), max(0, xy, xz, xy + xz), min(0, yz), max(0, yz)]
    box = f"{tilt[0]} {50 + tilt[1]} {xy}\n{tilt[2]} {60 + tilt[3]} {xz}\n0 70 {yz}"
    path = dump(
        tmp_path / "t.dump", calpha, "xs ys zs", lambda frame: frame @ np.linalg.inv(edges), box,
        "xy xz yz pp pp pp",
    )  # fmt: skip
    ((positions, _, cells),) = read_frames(str(path), calpha.topology, 0, 6)
    np.testing.assert_allclose(positions, calpha.xyz, atol=1e-5)
    np.testing.assert_allclose(cells[0], edges / 10, atol=1e-6)


def test_a_lammps_dump_that_cannot_be_read_names_the_line(calpha, tmp_path):
    path = dump(
        tmp_path / "a.dump", calpha, "xu yu zu", lambda frame: frame, "0 9\n0 9\n0 9", "ss ss ss"
    )
    assert next(read_frames(str(path), calpha.topology, 0, 1))[2] is None, "no periodic box"
    text = path.read_text()
    for changed, reason in (
        (
            text.replace("xu yu zu", "vx vy vz"),
            r"line 9: columns id vx vy vz: .*convert to XTC or DCD",
        ),
        (text[:-100], r"columns are expected; is the file truncated|id and three|no number"),
        (text.replace("\n20\n", "\n2000000\n", 1), "line 4: 2000000 atoms are announced"),
        (text.replace("\n3 ", "\n4 ", 1), "line 9: two particles of a frame have one id"),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=rf"a.dump: .*({reason})"):
            describe_file(str(path), calpha.topology)


def test_gro_files_of_many_frames_with_blank_lines(calpha, tmp_path):
    calpha.unitcell_vectors = np.tile(np.diag([5.0, 6.0, 7.0]), (6, 1, 1))
    path = tmp_path / "a.gro"
    calpha.save_gro(str(path), precision=5)
    text = path.read_text()
    title = text.splitlines()[0]
    path.write_text(text.replace(title, "", 1) + "\n\n")
    found = read_particles(path)
    np.testing.assert_allclose(frames_of(path, found), calpha.xyz, atol=1e-5)
    np.testing.assert_allclose(found.cell, np.diag([5, 6, 7]))
    lines = text.splitlines()
    for changed, reason in (
        ([*lines[:1], "  9999999", *lines[2:]], "line 2: 9999999 atoms are announced"),
        ([*lines[:10], lines[10][:30], *lines[11:]], "line 11: atom 9 of 20 is cut off"),
        ([*lines[:22], "5.0 6.0", *lines[23:]], "line 23: no box"),
        ([*lines[:5], lines[5][:20] + "   x.xxx" + lines[5][28:], *lines[6:]], "line 6: "),
        (["a title", "no number"], "line 2: 'no number' is no number of atoms"),
    ):
        path.write_text("\n".join(changed))
        with pytest.raises(InputError, match=rf"a.gro: {reason}"):
            read_particles(path)


def test_mmcif_by_author_and_label(tmp_path):
    """Long chain names, numbers by author, letters of insertion, two molecules under one author's name."""
    rows = [
        ("ATOM", 1, "C", "CA", ".", "ALA", "A", 1, "?", 0.0, 1.0, "-3", "Heavy", 1),
        ("ATOM", 2, "C", "CA", "A", "GLY", "A", 2, "B", 3.8, 0.4, "52", "Heavy", 1),
        ("ATOM", 3, "C", "CA", "B", "SER", "A", 2, "B", 3.9, 0.6, "52", "Heavy", 1),
        ("ATOM", 4, "C", "CA", ".", "TRP", "B", 1, "?", 60.0, 1.0, "53", "Heavy", 1),
        ("HETATM", 5, "C", '"C1\'"', ".", "NAG", "C", ".", "?", 90.0, 1.0, "1", "S", 1),
    ]
    rows += [(*row[:9], row[9] + 1, *row[10:13], 2) for row in rows]
    tags = [*MMCIF_TAGS, "Cartn_y", "Cartn_z"]
    lines = ["data_x", "loop_", *(f"_atom_site.{tag}" for tag in tags)]
    lines += [" ".join(map(str, (*row, 0.0, 0.0))) for row in rows]
    path = tmp_path / "a.cif"
    path.write_text("\n".join([*lines, "#", ""]))
    found = read_particles(path)
    assert [row[:3] for row in found.residues] == [
        ("ALA", -3, ""), ("SER", 52, "B"), ("TRP", 53, ""), ("NAG", 1, "")
    ]  # fmt: skip
    assert [chain.id for chain in found.chains] == ["Heavy", "Heavy", "S"]
    assert found.names[-1] == "C1'"
    np.testing.assert_allclose(
        frames_of(path, found, 1, 2)[0, :, 0], [0.1, 0.49, 6.1, 9.1], atol=1e-6
    )
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match="model 2 has 4 atoms, the first model 5"):
        read_particles(path)
    path.write_text("data_x\nloop_\n_atom_site.id\n1 2 '3\n")
    with pytest.raises(InputError, match=r"a.cif: is no mmCIF that can be read"):
        read_particles(path)


def test_headers_are_held_against_the_size_of_the_file(calpha, tmp_path):
    """Before memory is spent on what they announce."""
    calpha.save_xtc(str(tmp_path / "a.xtc"))
    calpha.save_dcd(str(tmp_path / "a.dcd"))
    xtc = bytearray((tmp_path / "a.xtc").read_bytes())
    xtc[4:8] = struct.pack(">i", 10**9)
    dcd = bytearray((tmp_path / "a.dcd").read_bytes())
    place = dcd.index(struct.pack("<3i", 4, 20, 4)) + 4
    dcd[place : place + 4] = struct.pack("<i", 10**9)
    for name, content in (("b.xtc", xtc), ("b.dcd", dcd)):
        (tmp_path / name).write_bytes(bytes(content))
        with pytest.raises(InputError, match=rf"{name}: its header announces 1000000000 atoms"):
            describe_file(str(tmp_path / name), calpha.topology)
    with pytest.raises(InputError, match=r"a.xtc: 20 atoms, the topology has 17"):
        describe_file(str(tmp_path / "a.xtc"), topology_from_sequence(["GGGG"]))


def test_capital_suffixes_of_binary_files(calpha, tmp_path):
    for suffix in ("xtc", "dcd", "trr"):
        calpha.save(str(tmp_path / f"a.{suffix}"))
        (tmp_path / f"a.{suffix}").rename(tmp_path / f"A.{suffix.upper()}")
        found = frames_of(tmp_path / f"A.{suffix.upper()}", calpha.topology)
        np.testing.assert_allclose(found, calpha.xyz, atol=6e-4)


PEAK = (
    "import resource, sys\n"
    "from hpcbackmap.trajectories.read_particles import read_particles\n"
    "from hpcbackmap.trajectories.reader import describe_file, read_frames\n"
    "path = sys.argv[1]; top = read_particles(path); n, _ = describe_file(path, top)\n"
    "assert sum(len(piece[0]) for piece in read_frames(path, top, 0, n)) == n == int(sys.argv[2])\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def test_memory_does_not_grow_with_the_models_of_a_file(calpha, tmp_path):
    """5 and 5000 models, in 3 MB of gzip: before, 8 KB a model and line."""
    calpha[0].save_pdb(str(tmp_path / "one.pdb"))
    atoms = [
        line for line in (tmp_path / "one.pdb").read_bytes().splitlines() if line[:4] == b"ATOM"
    ]
    model = b"\n".join([b"MODEL", *atoms, b"ENDMDL", b""])
    peaks = []
    for count in (5, 5000):
        path = tmp_path / f"{count}.pdb.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(count):
                file.write(model)
        answer = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(answer.stdout))
    assert peaks[1] - peaks[0] < 20_000, "KB"


def test_a_lammps_data_file_names_and_places_particles(tmp_path):
    """Types by the comments of their masses, ids in any order, image flags, molecules."""
    rows = [
        "2 1 2 0.5 9.0 1.0 1.0 0 0 0",
        "1 1 1 0 5.0 1 1 0 0 0",
        "3 1 1 0 3.0 1 1 1 0 0",
        "4 2 2 0 7 7 7 0 0 0",
    ]
    text = (
        "made by hand\n\n4 atoms\n2 atom types\n\n-0.0 50.0 xlo xhi\n0 50 ylo yhi\n0 60 zlo zhi\n\n"
        "Masses\n\n1 71.08 # ALA\n2 57.05 # GLY\n\nAtoms # full\n\n"
        + "\n".join(rows)
        + "\n\nBonds\n\n1 1 1 2\n"
    )
    (tmp_path / "sys.data").write_text(text)
    found = read_particles(str(tmp_path / "sys.data"))
    assert [row.name for row in found.residues] == ["ALA", "GLY", "ALA", "GLY"]
    assert [row.chain for row in found.residues] == [0, 0, 0, 1]
    np.testing.assert_allclose(found.positions[:, 0], [0.5, 0.9, 5.3, 0.7], atol=1e-6)
    np.testing.assert_allclose(found.cell, np.diag([5, 5, 6]))
    (tmp_path / "cut.data").write_text(text.replace("\n4 atoms", "\n5 atoms"))
    with pytest.raises(InputError, match=r"5 atoms are announced, 4 are there"):
        read_particles(str(tmp_path / "cut.data"))
    (tmp_path / "bad.data").write_text(text.replace("2 1 2 0.5 9.0 1.0", "2 1 2 0.5 9.0 what"))
    with pytest.raises(InputError, match=r"line 17: 'what' is no number"):
        read_particles(str(tmp_path / "bad.data"))


@pytest.mark.parametrize("suffix", ["pdb", "gro", "cif"])
def test_text_of_other_encodings(calpha, tmp_path, suffix):
    """A byte order mark hid the first atom of a PDB file."""
    plain = tmp_path / f"a.{suffix}"
    calpha[0].save(str(plain))
    expected = read_particles(str(plain))
    text = plain.read_text()
    (tmp_path / f"b.{suffix}").write_text(text, encoding="utf-8-sig")
    (tmp_path / f"c.{suffix}").write_bytes(text.replace("\n", "\r\n").encode())
    for name in "bc":
        found = read_particles(str(tmp_path / f"{name}.{suffix}"))
        assert found.names == expected.names
        assert [row.number for row in found.residues] == [row.number for row in expected.residues]
    for content, reason in (
        (text.encode("utf-16"), "is UTF-16 text"),
        (text.replace("\n", "\r").encode(), "a carriage return alone"),
        (gzip.compress(text.encode()), "is compressed by gzip"),
    ):
        plain.write_bytes(content)
        with pytest.raises(InputError, match=rf"a.{suffix}: .*{reason}"):
            read_particles(str(plain))


def test_columns_of_stars_are_no_numbers(calpha, tmp_path):
    calpha[:2].save_pdb(str(tmp_path / "a.pdb"))
    lines = (tmp_path / "a.pdb").read_text().splitlines()
    models = [n for n, line in enumerate(lines) if line.startswith("MODEL")]
    at = models[1] + 3
    lines[at] = lines[at][:30] + "*" * 24 + lines[at][54:]
    (tmp_path / "a.pdb").write_text("\n".join(lines) + "\n")
    found = read_particles(str(tmp_path / "a.pdb"))
    frames = frames_of(tmp_path / "a.pdb", found, 0, 2)
    assert np.argwhere(np.isnan(frames).any(axis=-1)).tolist() == [[1, 2]]


def test_xyz_of_many_frames_plain_and_gzip(calpha, tmp_path):
    """Frames of other counts, and pieces of a frame, are refused by line."""
    path = tmp_path / "a.xyz"
    calpha.save_xyz(str(path))
    packed = tmp_path / "b.xyz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for each in (path, packed):
        assert describe_file(str(each), calpha.topology)[0] == len(calpha)
        np.testing.assert_allclose(frames_of(each, calpha.topology), calpha.xyz, atol=1e-6)
    lines = path.read_text().splitlines()
    for changed, reason in (
        ([*lines[:-6]], "particle 15 of 20 has no name and three coordinates"),
        ([*lines, "1", "", "CA 0 0 0"], "line 133: frame 6 has 1 particles, the first 20"),
        ([*lines[:4], "CA 1.0 x 2.0", *lines[5:]], "line 5: 'x' is no number"),
        (["many", *lines[1:]], "line 1: 'many' is no number of particles"),
    ):
        path.write_text("\n".join(changed) + "\n")
        with pytest.raises(InputError, match=rf"a.xyz: .*{reason}"):
            describe_file(str(path), calpha.topology)


@pytest.mark.parametrize("suffix", ["rst7", "ncrst"])
def test_restart_files_of_amber_are_one_frame(calpha, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    calpha[0].save(str(path))
    assert describe_file(str(path), calpha.topology)[0] == 1
    np.testing.assert_allclose(frames_of(path, calpha.topology, 0, 1), calpha.xyz[:1], atol=1e-6)
    np.testing.assert_allclose(
        frames_of(path, calpha.topology, 0, 1, np.array([4, 2])), calpha.xyz[:1, [4, 2]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("a.tpr", "gmx editconf"),
        ("a.bcif.gz", r"\.cif"),
        ("a.mdcrd", "cpptraj"),
        ("a.pdb.xz", "unpack"),
        ("a.xtc.gz", "gunzip"),
    ],
)
def test_formats_that_are_not_read_name_the_way_on(tmp_path, name, way):
    (tmp_path / name).write_bytes(b"\0" * 99)
    with pytest.raises(InputError, match=rf"{name}: .*{way}"):
        read_particles(str(tmp_path / name))


@pytest.mark.parametrize("box", ["-9 9 9", "1e30 1e30 1e30", "nan 9 9", "9 0 9"])
def test_boxes_that_cannot_be_are_dropped_with_a_word(calpha, tmp_path, box):
    path = tmp_path / "a.gro"
    calpha[0].save_gro(str(path))
    path.write_text("\n".join([*path.read_text().splitlines()[:-1], box, ""]))
    found = read_particles(str(path))
    assert found.cell is None
    assert "no box has the edges" in found.words[0]
