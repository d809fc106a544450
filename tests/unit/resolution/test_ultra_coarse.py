"""Beads of several residues are shared out to sequences, or the place where they part is named."""

import numpy as np
import pytest

from hpcbackmap.resolution.representations.ultra_coarse import bead_ladder, read_ultra_coarse
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.particles import ChainRow, Particles, ResidueRow


def beads(*chains: int) -> Particles:
    total = sum(chains)
    chain = np.repeat(np.arange(len(chains)), chains).tolist()
    return Particles(
        "beads.pdb", ["B"] * total, np.arange(total),
        [ResidueRow("UNK", i + 1, "", c) for i, c in enumerate(chain)],
        [ChainRow(letter, "") for letter in "ABCDE"[: len(chains)]], [""] * total, np.full(total, np.nan),
        np.zeros((total, 3), np.float32),
    )  # fmt: skip


def test_beads_are_means_of_the_runs_of_their_chain():
    reading = read_ultra_coarse(beads(3, 2), ["ACDEFGHIKL", "MNPQRST"])
    assert np.bincount(reading.sites["bead_of"]).tolist() == [4, 3, 3, 4, 3]
    ladder = bead_ladder(reading)
    trace = np.random.default_rng(0).normal(size=(2, 17, 3)).astype(np.float32)
    found = ladder.coarsen(trace, "ca")["ucg"]
    np.testing.assert_allclose(found[:, 3], trace[:, 10:14].mean(1), atol=1e-6)


def test_runs_of_a_given_length_leave_the_rest_to_the_last_bead():
    reading = read_ultra_coarse(beads(3), ["ACDEFGHIKL"], residues_per_bead=4)
    assert np.bincount(reading.sites["bead_of"]).tolist() == [4, 4, 2]


def test_a_file_without_chains_is_parted_by_the_lengths_of_the_sequences():
    reading = read_ultra_coarse(beads(6), ["ACDEFGHI", "KLMN"])
    assert np.bincount(reading.sites["bead_of"]).tolist() == [2, 2, 2, 2, 2, 2]


def test_runs_of_given_lengths_and_what_a_bead_is():
    reading = read_ultra_coarse(beads(2, 2), ["ACDEFGHIKL", "MNPQRST"], lengths=[9, 1, 2, 5])
    assert np.bincount(reading.sites["bead_of"]).tolist() == [9, 1, 2, 5]
    ladder = bead_ladder(reading, "mass")
    assert (bead_ladder(reading).definition("ucg"), ladder.definition("ucg")) == ("ca", "mass")
    atoms = np.random.default_rng(0).normal(size=(1, reading.topology.n_atoms, 3))
    own = ladder.composed("ucg").bead == 2
    expected = np.average(atoms[0, own], axis=0, weights=reading.topology.masses[own])
    np.testing.assert_allclose(ladder.coarsen(atoms)["ucg"][0, 2], expected, atol=1e-12)
    with pytest.raises(ConfigError, match="cannot be 'middle'; know ca, atoms, mass"):
        bead_ladder(reading, "middle")


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ([9, 2, 2, 5], "chain 1: 2 beads for 10 residues; runs of 9, 2 residues make 11"),
        ([10, 0, 2, 5], "runs of 10, 0 residues"),
        ([9, 1, 7], "chain 2: 2 beads for 7 residues; runs of 7"),
        ([9, 1, 2, 5, 3], "5 lengths of runs for 4 beads"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, reason):
    with pytest.raises(InputError, match=reason):
        read_ultra_coarse(beads(2, 2), ["ACDEFGHIKL", "MNPQRST"], lengths=lengths)


@pytest.mark.parametrize(
    ("chains", "sequences", "per_bead", "reason"),
    [
        ((3, 2), ["ACDEFGHIKL"], None, "2 chains of 3, 2 beads, the sequence has 1"),
        ((5,), ["ACD"], None, "chain 1: 5 beads for 3 residues"),
        ((3,), ["ACDEFGHIKLMNPQ"], 4, "4 residues a bead make 4. Where they part: bead 3"),
        ((2,), ["ACDEFGHIKL"], None, "2 bead"),
    ],
)
def test_beads_that_do_not_fit_are_refused(chains, sequences, per_bead, reason):
    with pytest.raises(InputError, match=reason):
        read_ultra_coarse(beads(*chains), sequences, per_bead)
