"""Ramachandran outliers: a helix and a strand are none, their mirror images are, glycine may be both."""

import numpy as np

from hpcbackmap.metrics.ramachandran import ramachandran_outliers
from hpcbackmap.protein.topology import topology_from_sequence


def test_a_simulation_has_few_and_its_mirror_image_many(example):
    topology, positions = example
    share = ramachandran_outliers(topology, positions).mean()
    mirrored = ramachandran_outliers(topology, positions * np.array([1, 1, -1])).mean()
    assert share < 0.03
    assert mirrored > 0.3


def test_residues_with_both_torsions_count(example):
    topology, positions = example
    assert ramachandran_outliers(topology, positions[:1]).shape == (1, topology.n_residues - 2)
    two = topology_from_sequence(["AG"])
    assert ramachandran_outliers(two, np.zeros((1, two.n_atoms, 3))).shape == (1, 0)


def test_kinds_have_regions_of_their_own():
    from hpcbackmap.metrics.ramachandran import _bin
    from hpcbackmap.protein.ramachandran import KINDS, regions

    allowed = dict(zip(KINDS, regions("allowed"), strict=True))
    helix, left, strand = (
        [_bin(np.deg2rad(np.array(x))) for x in pair]
        for pair in ((-60, -45), (60, -120), (-120, 130))
    )
    for kind in KINDS:
        assert allowed[kind][tuple(helix)]
    assert allowed["general"][tuple(strand)]
    assert not allowed["proline"][tuple(strand)]
    assert allowed["glycine"][tuple(left)]
    assert not allowed["general"][tuple(left)]


def test_favoured_regions_lie_inside_the_allowed_ones():
    """And hold helices and strands, not what no residue does."""
    from hpcbackmap.protein.ramachandran import KINDS, regions

    favoured, allowed = regions("favoured"), regions("allowed")
    assert not (favoured & ~allowed).any()
    assert (favoured.sum((1, 2)) < 0.8 * allowed.sum((1, 2))).all()
    for phi, psi, inside in ((-63, -43, True), (-120, 130, True), (60, -120, False)):
        row, column = (int((angle + 180) // 5) for angle in (phi, psi))
        assert favoured[KINDS.index("general"), row, column] == inside
