"""The Python face: the examples of its documentation run, and give what the command gives."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

import hpcbackmap
from hpcbackmap import api

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def calpha(example_run):
    whole = example_run
    return whole[:5].atom_slice(whole.topology.select("name CA"))


def test_the_examples_of_the_documentation_run():
    failed, tried = doctest.testmod(api)
    assert tried > 15
    assert failed == 0


def test_importing_the_package_loads_nothing():
    code = (
        "import sys, hpcbackmap; hpcbackmap.__version__; dir(hpcbackmap); "
        "print(len({'torch', 'mdtraj', 'numpy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "0"


def test_unknown_names_are_told():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hpcbackmap.nothing


def test_files_hold_what_the_call_returns(calpha, tmp_path):
    """A trajectory in memory, its file, and files out: one structure, whatever the way."""
    calpha.save_dcd(str(tmp_path / "in.dcd"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    calpha = mdtraj.load(str(tmp_path / "in.dcd"), top=str(tmp_path / "in.pdb"))
    made = hpcbackmap.backmap(calpha, members=2, seed=4)
    of_file = hpcbackmap.backmap(tmp_path / "in.dcd", members=2, seed=4, top=tmp_path / "in.pdb")
    paths = hpcbackmap.backmap(calpha, members=2, seed=4, output=tmp_path / "o.dcd")
    assert [path.name for path in paths] == ["o_1.dcd", "o_2.dcd"]
    for one, two, path in zip(made, of_file, paths, strict=True):
        assert np.array_equal(one.xyz, two.xyz)
        written = mdtraj.load(str(path), top=str(tmp_path / "o_top.pdb"))
        np.testing.assert_allclose(written.xyz, one.xyz, atol=1e-6)
        assert np.array_equal(one.time, calpha.time)
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_trajectories_are_judged(calpha):
    first, second = hpcbackmap.backmap(calpha, members=2)
    record = hpcbackmap.evaluate(first, second)
    rows = {row["row"]: row["metrics"] for row in record["rows"]}
    assert record["n_frames"] == 5
    assert rows["model"]["d_residues_percent"]["value"] == 0
    same = {row["row"]: row["metrics"] for row in hpcbackmap.evaluate(first, first)["rows"]}
    assert same["model"]["rmsd_angstrom"]["value"] < 1e-3


def test_a_bad_frame_is_left_out_and_the_times_say_which(calpha):
    broken = mdtraj.Trajectory(calpha.xyz.copy(), calpha.topology, time=np.arange(5) * 2.0)
    broken.xyz[2, 7] = np.nan
    (made,) = hpcbackmap.backmap(broken, mode=True)
    assert made.time.tolist() == [0.0, 2.0, 6.0, 8.0]
