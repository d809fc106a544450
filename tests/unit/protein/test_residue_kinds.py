"""What a residue's name says."""

import pytest

from hpcbackmap.protein.residue_kinds import modified_parent, residue_kind, sirah_parent


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ALA", "protein"),
        ("hie", "protein"),
        ("sHe", "protein"),
        ("SEP", "modified"),
        ("MSE", "modified"),
        ("ACE", "cap"),
        ("TIP3", "water"),
        ("NA+", "ion"),
        ("DG5", "DNA"),
        ("RU3", "RNA"),
        ("POPC", "lipid"),
        ("NAG", "sugar"),
        ("HEM", "ligand"),
        ("DAL", "D-residue"),
        ("UNK", "unknown"),
        ("QZX", "unknown"),
    ],
)
def test_kinds(name, kind):
    assert residue_kind(name) == kind


@pytest.mark.parametrize(
    ("name", "parent"),
    [("SEP", "SER"), ("HYP", "PRO"), ("SEC", "CYS"), ("ALA", None), ("HEM", None)],
)
def test_parents(name, parent):
    assert modified_parent(name) == parent


def test_names_of_sirah_hang_on_their_case():
    assert sirah_parent("sK") == "LYS"
    assert sirah_parent("nA") == "ALA"
    assert sirah_parent("sX") == "CYS"
    assert sirah_parent("SK") is None
    assert sirah_parent("NA") is None
