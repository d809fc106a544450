"""What only a card can show: the CPU's structures, the same bits twice and for any number of ranks on it."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_campaign import make_campaign

from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.config.load import resolved_yaml
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.store.store import open_store

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
CLOSE = 1e-5
"""nm: 1e-4 A."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return make_campaign(tmp_path_factory.mktemp("one"), ["fg", "ca", "ucg:3"], ["first"])[0]


def members(campaign, device: str) -> list[dict[str, np.ndarray]]:
    """Two members and the one answer of four frames."""
    stored = open_store(campaign.store_place()).system("first")
    folders = [campaign.path(f"stages/{rung}/artifact") for rung in ("ucg3-ca", "ca-fg")]
    stages = [load_artifact(folder) for folder in folders]
    chain = Chain(stages, stored.ladder, torch.device(device))
    coarse = stored.read("ucg3", 0, 4)
    return [
        level
        for which in ([0, 1], [None])
        for level in chain.run_members(coarse, [0, 1, 2, 3], which, seed=3)
    ]


def test_structures_are_those_of_the_cpu(campaign):
    for here, there in zip(members(campaign, "cpu"), members(campaign, "cuda"), strict=True):
        for level, positions in here.items():
            assert np.abs(positions - there[level]).max() < CLOSE, level


def test_same_bits_twice(campaign):
    for one, other in zip(members(campaign, "cuda"), members(campaign, "cuda"), strict=True):
        assert all(np.array_equal(one[level], other[level]) for level in one)


def test_same_bits_for_any_number_of_ranks(campaign, tmp_path):
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun here")
    found = []
    for ranks in (1, 2, 4):
        folder = shutil.copytree(campaign.workdir, tmp_path / str(ranks))
        path = folder / "campaign.yaml"
        path.write_text(resolved_yaml(campaign.model_copy(update={"workdir": str(folder)})))
        command = [
            "mpirun",
            "--oversubscribe",
            "-n",
            str(ranks),
            sys.executable,
            "-m",
            "hpcbackmap",
        ]
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        subprocess.run(
            [*command, "backmap", str(path), "backmap.frames=0:8", "backmap.shard_frames=2"],
            check=True,
            env=os.environ | root,
        )
        system = open_store(folder / "backmapped.zarr").system("first")
        found.append(system.read("fg", 0, system.n_frames))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
