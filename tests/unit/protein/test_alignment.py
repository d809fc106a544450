"""Alignment of the sequence of a structure with that of a protein."""

import numpy as np

from hpcbackmap.protein.alignment import aligned, identity

SEQUENCE = "MRIILLGAPGAGKGTQAQFIMEKYGIPQISTGDMLRAAVKSGSELGKQAKDIMDAGKLVTDELVIALVKE"


def test_a_missing_loop_a_tag_and_a_mutation_are_found_where_they_are():
    other = "HH" + SEQUENCE[:30] + SEQUENCE[44:55] + "W" + SEQUENCE[56:]
    pairs = aligned(SEQUENCE, other)
    kept = [*range(30), *range(44, len(SEQUENCE))]
    assert pairs[:, 0].tolist() == kept
    assert pairs[:, 1].tolist() == list(range(2, len(other)))
    assert np.isclose(identity(SEQUENCE, other, pairs), (len(kept) - 1) / len(other))


def test_sequences_that_are_not_related_are_not_alike():
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    generator = np.random.default_rng(0)
    first, second = ("".join(generator.choice(letters, n)) for n in (120, 200))
    assert identity(first, second, aligned(first, second)) < 0.2
    assert identity("AAAA", "CCCC", aligned("AAAA", "CCCC")) == 0
