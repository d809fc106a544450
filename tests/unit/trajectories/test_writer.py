"""What a trajectory file keeps."""

import logging

import mdtraj
import numpy as np
import pytest

from hpcbackmap.trajectories.writer import TrajectoryWriter


@pytest.mark.parametrize(("suffix", "told"), [(".xtc", False), (".dcd", True), (".pdb", True)])
def test_times_that_a_format_does_not_keep_are_told(suffix, told, example_dir, tmp_path, caplog):
    top = str(example_dir / "trpcage_top.pdb")
    loaded = mdtraj.load(str(example_dir / "trpcage.xtc"), top=top)[:3]
    output = tmp_path / f"out{suffix}"
    times = np.array([5.0, 15.0, 25.0])
    with (
        caplog.at_level(logging.INFO, "hpcbackmap"),
        TrajectoryWriter(output, loaded.topology) as file,
    ):
        file.append(loaded.xyz, np.arange(3), times)
    assert ("keeps no times" in caplog.text) == told
    back = mdtraj.load(str(output), top=top).time
    assert np.array_equal(back, np.arange(3) if told else times)
