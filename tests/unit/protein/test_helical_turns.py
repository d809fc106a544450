"""The way helices wind is counted: to the right in proteins, to the left in their mirror images."""

import mdtraj
import numpy as np

from hpcbackmap.protein.helical_turns import helical_turns, mirrored


def test_turns_of_a_protein_and_of_its_mirror_image(data_dir):
    folder = data_dir / "lambda_lysozyme"
    frames = mdtraj.load(folder / "1am7_md.xtc", top=folder / "1am7_md_top.pdb")[::25]
    trace = frames.xyz[:, frames.topology.select("name CA")]
    bonded = np.arange(trace.shape[1]) > 0
    left, turns = helical_turns(trace, bonded)
    assert turns > 100
    assert left < 0.1 * turns
    assert not mirrored(left, turns)
    again = helical_turns(trace * [1, 1, -1], bonded)
    assert again == (turns - left, turns)
    assert mirrored(*again)


def test_a_chain_without_handedness_is_no_mirror_image():
    steps = np.random.default_rng(0).normal(0, 1, (4, 300, 3))
    steps *= 0.38 / np.linalg.norm(steps, axis=-1, keepdims=True)
    left, turns = helical_turns(steps.cumsum(1), np.arange(300) > 0)
    assert turns > 20
    assert not mirrored(left, turns)
    assert helical_turns(steps[:, :3], np.array([False, True, True])) == (0, 0)
    assert not mirrored(9, 9)
