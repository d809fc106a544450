"""Molecules that the periodic box cuts: whole again, equal to what was cut."""

import mdtraj
import numpy as np
import pytest

from hpcbackmap.config.campaign import SystemConfig
from hpcbackmap.ingest.survey import survey_system
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.checks import Links
from hpcbackmap.trajectories.periodic import Mender, written_whole

BOXES = {
    "orthorhombic": [[3.0, 0, 0], [0, 3.4, 0], [0, 0, 3.2]],
    "triclinic": [[3.4, 0, 0], [1.1, 3.2, 0], [-1.2, 1.3, 2.9]],
}


def wrapped(trajectory, cell, shift):
    """Every atom in the box, the molecule moved by ``shift`` (fractions of the box) so that it is cut."""
    moved = mdtraj.Trajectory(trajectory.xyz.copy(), trajectory.topology, trajectory.time)
    cell = np.array(cell)
    fractions = moved.xyz.astype(np.float64) @ np.linalg.inv(cell) + shift
    moved.xyz = ((fractions % 1.0) @ cell).astype(np.float32)
    moved.unitcell_vectors = np.tile(cell, (len(moved), 1, 1)).astype(np.float32)
    return moved


def about_first(positions):
    return positions - positions[:, :1]


@pytest.fixture(scope="module")
def trpcage(example_run):
    return example_run[:40]


@pytest.mark.parametrize("box", BOXES)
def test_a_wrapped_trajectory_is_the_unwrapped_one(trpcage, example_dir, tmp_path, box):
    cut = wrapped(trpcage, BOXES[box], [0.02, 0.5, 0.97])
    system = {"name": "s", "topology": str(example_dir / "trpcage_top.pdb")}
    for name, trajectory in (("cut", cut), ("whole", trpcage)):
        trajectory.save(str(tmp_path / f"{name}.trr"))
    found, expected = (
        survey_system(SystemConfig(**system, trajectories=[str(tmp_path / f"{name}.trr")]))
        for name in ("cut", "whole")
    )
    assert found.topology == expected.topology, "no chain break where the box cuts"
    pieces = list(found.read_pieces(0, len(trpcage)))
    positions = np.concatenate([piece.positions for piece in pieces])
    original = np.concatenate([piece for piece, *_ in expected.read(0, len(trpcage))])
    np.testing.assert_allclose(about_first(positions), about_first(original), rtol=0, atol=1e-5)
    assert np.concatenate([piece.mended for piece in pieces]).sum() > len(trpcage) // 2


def test_chains_stay_beside_each_other(example_dir, tmp_path):
    """Two chains, the second a box away: together again, in a simulation. Where the author of a crystal
    structure put it, it stays."""
    one = mdtraj.load(str(example_dir / "trpcage_top.pdb"))
    both = one.stack(one)
    cell = np.diag([6.0, 6.0, 6.0])
    both.xyz[:, one.n_atoms :] += np.float32([2.0, 0.3, 0])
    both.unitcell_vectors = cell[None].astype(np.float32)
    apart = both[:]
    apart.xyz[:, one.n_atoms :] += np.float32([6.0, -6.0, 0])
    for name, trajectory in (("both", both), ("apart", apart)):
        trajectory.save(str(tmp_path / f"{name}.pdb"))
        trajectory.save(str(tmp_path / f"{name}.trr"))

    def read(name):
        survey = survey_system(
            SystemConfig(
                name="s", topology=str(tmp_path / "both.pdb"), trajectories=[str(tmp_path / name)]
            )
        )
        (piece,) = survey.read_pieces(0, 1)
        return piece.positions, int(piece.mended.sum())

    expected, mended = read("both.trr")
    assert mended == 0
    found, mended = read("apart.trr")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert mended == 1
    crystal, mended = read("apart.pdb")
    assert mended == 0
    assert np.abs(crystal - expected).max() > 5


def test_what_another_image_does_not_mend_is_refused(trpcage, example_dir, tmp_path):
    broken = wrapped(trpcage, BOXES["orthorhombic"], [0.5, 0.5, 0.5])
    broken.xyz[7, 80:] += np.float32([0.7, 0, 0])
    broken.save(str(tmp_path / "broken.trr"))
    survey = survey_system(
        SystemConfig(
            name="s",
            topology=str(example_dir / "trpcage_top.pdb"),
            trajectories=[str(tmp_path / "broken.trr")],
        )
    )
    with pytest.raises(InputError, match=r"broken.trr: frame 7: .* are bonded, but"):
        list(survey.read(0, len(trpcage)))


def chains_of_three(starts, cell):
    """Straight chains of three particles 0.38 nm apart that begin at ``starts``, wrapped into a box."""
    steps = np.arange(3)[:, None] * np.array([0.38, 0, 0])
    positions = (np.asarray(starts, dtype=float)[:, None] + steps).reshape(1, -1, 3)
    pairs = np.array([(3 * c + i, 3 * c + i + 1) for c in range(len(starts)) for i in (0, 1)])
    links = Links(pairs, np.full(len(pairs), 0.25), np.full(len(pairs), 0.5), str)
    return positions % np.diag(cell), positions, links


def test_molecules_of_a_solution_are_whole_and_stay_in_their_box():
    """200 chains anywhere: nearest to the one before would walk boxes away."""
    cell = np.eye(3) * 10.0
    starts = np.random.default_rng(0).uniform(0, 10, (200, 3))
    wrapped, whole, links = chains_of_three(starts, cell)
    found, changed = Mender(600, links, gather=True).mend(wrapped, cell[None])
    assert changed.all()
    assert np.abs(found - whole).max() < 1e-9
    apart, _, _ = chains_of_three(starts % 9, cell)
    found, changed = Mender(600, links, gather=True).mend(apart, cell[None])
    assert not changed.any(), "none is cut"
    assert (found == apart).all(), "none is moved"


def test_a_complex_comes_together_whatever_the_order_of_its_chains():
    """A ring of chains over the corner of the box, every second one listed first, one in two pieces."""
    cell = np.eye(3) * 10.0
    ring = [[9.0 + 0.5 * k, 9.5 + 0.3 * k, 9.8] for k in (0, 2, 4, 1, 3)]
    wrapped, whole, links = chains_of_three(ring, cell)
    pieces = Links(np.delete(links.pairs, 9, axis=0), links.low[1:], links.high[1:], str)
    chains = np.repeat(np.arange(5), 3)
    found, _ = Mender(15, pieces, gather=True, chains=chains).mend(wrapped, cell[None])
    np.testing.assert_allclose(about_first(found), about_first(whole), atol=1e-9)


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.eye(3) * 0.1, np.full((3, 3), np.nan)])
def test_a_placeholder_is_no_box(cell):
    """Bonds are not made shorter with what stands for "no box" in XTC and PDB files."""
    pair = Links(np.array([[0, 1]]), np.array([0.1]), np.array([0.3]), str)
    positions = np.array([[[0, 0, 0], [1.05, 0, 0]]], dtype=np.float32)
    found, changed = Mender(2, pair, gather=True).mend(positions, cell[None])
    assert not changed.any()
    np.testing.assert_array_equal(found, positions)


@pytest.mark.filterwarnings("error")
def test_a_frame_without_numbers_hurts_no_other_frame():
    wrapped, whole, links = chains_of_three([[9.9, 5, 5]], np.eye(3) * 10.0)
    frames = np.concatenate([wrapped] * 3)
    frames[1, 1] = np.nan
    frames[2, 0, 2] = np.inf
    found, changed = Mender(3, links, gather=True).mend(
        frames, np.tile(np.eye(3) * 10.0, (3, 1, 1))
    )
    assert changed.tolist() == [True, False, False]
    np.testing.assert_allclose(found[0], whole[0])


def far_links(reach):
    """Three particles in a row whose links may be ``reach`` long."""
    return Links(np.array([[0, 1], [1, 2]]), np.full(2, 0.02), np.full(2, reach), lambda n: f"b{n}")


@pytest.mark.parametrize("box", ["rectangular", "skewed"])
def test_links_that_reach_over_half_a_box_are_whole_where_they_do_not_look_cut(box):
    """Wrapped, the second link is 9 nm long, which beads of many residues may be as well."""
    cell = np.eye(3) * 12.0
    if box == "skewed":
        cell[1, 0] = 5.0
    whole = np.array([[[8.0, 6, 6], [10.8, 6, 6], [13.8, 6.2, 6]]])
    wrapped = (whole @ np.linalg.inv(cell) % 1) @ cell
    links = far_links(reach=11.0)
    assert not links.broken(wrapped).any(), "it does not look cut"
    for gather in (True, False):
        found, _ = Mender(3, links, gather).mend(wrapped, cell[None])
        np.testing.assert_allclose(about_first(found), about_first(whole), atol=1e-9)


def test_molecules_written_whole_keep_links_over_half_a_box():
    """Seven of ten nm apart: the frame is wider than its box, or another one of the input is."""
    cell = np.eye(3) * 10.0
    wide = np.array([[[1.0, 5, 5], [8.0, 5, 5], [15.0, 5, 5]]])
    bent = np.array([[[1.0, 5, 5], [8.0, 5, 5], [4.0, 5, 5]]])
    assert written_whole(wide, cell[None])
    assert not written_whole(bent, cell[None])
    found, changed = Mender(3, far_links(9.0), gather=True).mend(wide, cell[None])
    assert not changed.any()
    found, changed = Mender(3, far_links(9.0), gather=True, whole=True).mend(bent, cell[None])
    assert not changed.any()
    np.testing.assert_array_equal(found, bent)


def test_two_images_as_near_are_not_chosen_from():
    cell = np.eye(3) * 10.0
    positions = np.array(
        [[[2.0, 5, 5], [6.8, 5, 5], [7.0, 5, 5]], [[2.0, 5, 5], [5, 5, 5], [6, 5, 5]]]
    )
    cells = np.tile(cell, (2, 1, 1))
    found = Mender(3, far_links(9.0), gather=True).untold(positions, cells)
    assert list(found) == [0], "of 3 and 7 nm the nearer one is taken"
    assert "b0 and b1 are 4.8 nm apart or, across the periodic box, 5.2" in found[0]
    assert not Mender(3, far_links(5.0), gather=True).untold(positions, cells), (
        "5.2 is out of reach"
    )
    assert not Mender(3, far_links(9.0), gather=True, whole=True).untold(positions, cells)
