"""Files that were cut, or put together from two, are refused before a frame of them is believed."""

import struct

import mdtraj
import pytest

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.reader import describe_file, first_frames


@pytest.fixture(scope="module")
def calpha(example_dir):
    loaded = mdtraj.load(
        str(example_dir / "trpcage.xtc"), top=str(example_dir / "trpcage_top.pdb")
    )[:4]
    return loaded.atom_slice(loaded.topology.select("name CA"))


@pytest.mark.parametrize("suffix", ["xtc", "trr"])
@pytest.mark.parametrize("atoms", [19, 150])
def test_frames_of_another_number_of_atoms(calpha, example_dir, tmp_path, suffix, atoms):
    """Fewer were filled with what was in memory; more were written beyond it."""
    other = mdtraj.load(str(example_dir / "trpcage_top.pdb")).atom_slice(range(atoms))
    paths = [tmp_path / f"{name}.{suffix}" for name in ("first", "second", "both")]
    calpha.save(str(paths[0]))
    other.save(str(paths[1]))
    paths[2].write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
    for read in (describe_file, lambda path, top: first_frames(path, top, 5)):
        with pytest.raises(InputError, match=rf"frame 4 has {atoms} atoms, those before it 20"):
            read(str(paths[2]), calpha.topology)


def test_a_dcd_file_of_an_interrupted_run(calpha, tmp_path):
    """Its header announces no frames: whole ones are read, a piece of one is not passed over in silence."""
    path = tmp_path / "a.dcd"
    calpha.save_dcd(str(path))
    data = bytearray(path.read_bytes())
    data[8:12] = struct.pack("<i", 0)
    path.write_bytes(data)
    assert describe_file(str(path), calpha.topology)[0] == 4
    path.write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"3 frames and 164 of the 264 bytes of another"):
        describe_file(str(path), calpha.topology)


def test_what_a_reader_in_c_prints_stays_out_of_the_message(calpha, tmp_path, capfd):
    path = tmp_path / "a.xtc"
    calpha.save_xtc(str(path))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a.xtc: cannot be read, perhaps truncated"):
        describe_file(str(path), calpha.topology)
    assert capfd.readouterr().err == ""
