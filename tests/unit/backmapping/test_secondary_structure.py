"""`backmap FILE --secondary-structure`: what it changes, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from beads_of_example import BEADS, beads_of_example

import hpcbackmap
from hpcbackmap.backmapping.secondary_structure import read_secondary_structure
from hpcbackmap.runtime.errors import InputError


@pytest.fixture
def beads(example_dir):
    """Beads of four residues of the example, and its sequence."""
    trajectory, sequence, *_ = beads_of_example(example_dir, 1)
    return trajectory, sequence


def calpha_of(trajectory, sequence, **options):
    (made,) = hpcbackmap.backmap(trajectory, sequence=sequence, mode=True, **options)
    return made.xyz[0, made.topology.select("name CA")]


def test_letters_or_a_file_of_them_change_the_trace_and_keep_the_beads(beads, tmp_path):
    trajectory, sequence = beads
    letters = "E" * len(sequence)
    path = tmp_path / "known.ss"
    path.write_text(f">a\n{letters[:9]}\n{letters[9:]}\n")
    plain = calpha_of(trajectory, sequence)
    unknown = calpha_of(trajectory, sequence, secondary_structure="?" * len(sequence))
    told = calpha_of(trajectory, sequence, secondary_structure=letters)
    from_file = calpha_of(trajectory, sequence, secondary_structure=str(path))
    assert np.array_equal(plain, unknown)
    assert np.array_equal(told, from_file)
    assert np.abs(told - plain).max() > 0.05
    centres = told.reshape(BEADS, 4, 3).mean(1)
    assert np.abs(centres - trajectory.xyz[0]).max() < 1e-4


def test_names_of_files_are_not_taken_for_letters(tmp_path):
    with pytest.raises(InputError, match="a folder, no file that can be read"):
        read_secondary_structure(str(tmp_path), Path())
    with pytest.raises(InputError, match="no such file"):
        read_secondary_structure("hec.txt", tmp_path)
    assert read_secondary_structure("..HH..", tmp_path).letters == "..HH.."


@pytest.mark.parametrize(
    ("letters", "words"),
    [("HHH", "3 letters; the protein has 20 residues"), ("h" * 20, "letter 1 is 'h'")],
)
def test_letters_that_do_not_fit_are_refused(beads, letters, words):
    trajectory, sequence = beads
    with pytest.raises(InputError) as caught:
        calpha_of(trajectory, sequence, secondary_structure=letters)
    assert words in str(caught.value)


def test_of_calpha_atoms_nothing_is_asked(example_dir):
    with pytest.raises(InputError, match="here there is none: leave it out"):
        hpcbackmap.backmap(
            str(example_dir / "trpcage.xtc"),
            top=str(example_dir / "trpcage_top.pdb"),
            frames="0:1",
            secondary_structure="H" * 20,
            representation="ca",
        )
