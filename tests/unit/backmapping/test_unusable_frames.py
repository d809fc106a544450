"""Frames in a store of C-alpha atoms that no structure can be made of."""

import numpy as np
from calpha_campaign import example_calphas, ingested

from hpcbackmap.backmapping.driver import backmap
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
