"""Numbers in the few columns of PDB files."""

import pytest

from hpcbackmap.trajectories.hybrid36 import read_hybrid36, write_hybrid36


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (-999, "-999"),
        (42, "  42"),
        (9999, "9999"),
        (10_000, "A000"),
        (10_000 + 26 * 36**3 - 1, "ZZZZ"),
        (10_000 + 26 * 36**3, "a000"),
        (10_000 + 52 * 36**3 - 1, "zzzz"),
    ],
)
def test_ends_of_every_range_go_out_and_come_back(number, text):
    """The table of Grosse-Kunstleve and Adams (iotbx, hybrid_36)."""
    assert write_hybrid36(number, 4) == text
    assert read_hybrid36(text.encode()) == number


def test_what_does_not_fit_is_said():
    assert write_hybrid36(10_000 + 52 * 36**3, 4) is None
    assert write_hybrid36(-1000, 4) is None


@pytest.mark.parametrize("field", [b"A0 0", b"Aa00", b"1A00", b"    ", b"\xe90000"])
def test_what_is_no_number_is_none(field):
    assert read_hybrid36(field) is None
