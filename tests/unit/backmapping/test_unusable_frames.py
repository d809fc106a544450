"""Frames in a store of C-alpha atoms that no structure can be made of."""

import numpy as np
from calpha_campaign import example_calphas, ingested

from hpcbackmap.backmapping.driver import backmap
from hpcbackmap.backmapping.source import filled
from hpcbackmap.protein.neighbours import pairs_within
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.store.store import open_store


def test_a_straight_line_of_calphas_is_quarantined(example_dir, tmp_path):
    calpha = example_calphas(example_dir)
    calpha.xyz[2, 18:] = calpha.xyz[2, 17] + 0.38 * np.array([[0, 0.6, 0.8], [0, 1.2, 1.6]])
    campaign = ingested(calpha, tmp_path, members=2)
    quarantined = backmap(campaign, LocalComm())["quarantined"]
    assert [(item["frame"], item["member"]) for item in quarantined] == [(2, 0), (2, 1)]
    assert "on one line" in quarantined[0]["reason"]
    system = open_store(tmp_path / "backmapped.zarr").system("s")
    unusable = np.isnan(system.read("fg", 0, 8)).all(axis=(1, 2))
    assert unusable.tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_where_no_frame_is_usable_what_is_computed_is_no_heap():
    """Two hundred residues at one place took 22 s a frame to be thrown away."""
    frames = np.full((2, 200, 3), np.nan, dtype=np.float32)
    found = filled(frames, {0: "not finite", 1: "not finite"})
    assert found.dtype == np.float32
    gaps = np.linalg.norm(np.diff(found, axis=1), axis=-1)
    assert 0.35 < gaps.min() < gaps.max() < 0.40
    assert not len(pairs_within(found[1], 0.35))
