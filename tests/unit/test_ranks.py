"""The adapter between launchers and ranks."""

import pytest

from hpcbackmap.errors import ConfigError, OutputError, ResourceError
from hpcbackmap.training.ranks import World, on_rank_zero, pick_device, read_world

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "2",
    "SLURM_NTASKS": "8",
}


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        ({}, World(0, 1, 0, "single process")),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, World(1, 4, 1, "torchrun")),
        (OPEN_MPI, World(3, 4, 1, "Open MPI")),
        ({"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALRANKID": "0"}, World(2, 3, 0, "PMI")),
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, World(2, 3, 2, "PMI")),
        (SLURM, World(5, 8, 2, "Slurm")),
        # A batch script itself, without srun.
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"},
            World(0, 1, 0, "single process"),
        ),
        # mpirun in a job: its daemons were started by srun, one per node.
        (
            OPEN_MPI | SLURM | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
            World(3, 4, 1, "Open MPI"),
        ),
        # srun starts torchrun once per node.
        (
            {
                "RANK": "6",
                "WORLD_SIZE": "8",
                "LOCAL_RANK": "2",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
            },
            World(6, 8, 2, "torchrun"),
        ),
        ({"RANK": "2"}, World(0, 1, 0, "single process")),
    ],
)
def test_world_of_each_launcher(environ, world):
    assert read_world(environ) == world


@pytest.mark.parametrize("outer", [OPEN_MPI, SLURM, {"PMI_RANK": "0", "PMI_SIZE": "2"}])
def test_ranks_that_each_believe_to_be_alone_are_refused(outer):
    with pytest.raises(ResourceError, match="every rank believes to be 0 of 1"):
        read_world(outer | {"RANK": "0", "WORLD_SIZE": "1"})


@pytest.mark.parametrize(("rank", "size"), [("4", "4"), ("-1", "4"), ("0", "0"), ("one", "4")])
def test_nonsense_is_refused(rank, size):
    with pytest.raises(ConfigError, match="RANK"):
        read_world({"RANK": rank, "WORLD_SIZE": size})


def test_one_gpu_per_rank_of_the_node():
    second = World(5, 8, 1, "Slurm")
    assert str(pick_device(second, 2)) == "cuda:1"
    assert str(pick_device(second, 0)) == "cpu"
    assert str(pick_device(second, 1, gpus_bound=True)) == "cuda:0"
    with pytest.raises(ResourceError, match=r"1 GPU\(s\), but a rank 2 on this node"):
        pick_device(second, 1)


def test_full_disk_on_rank_zero_is_an_output_error():
    def write():
        raise OSError(28, "No space left on device", "work/manifest.json")

    with pytest.raises(OutputError, match=r"work/manifest.json: No space left on device"):
        on_rank_zero(World(0, 1, 0, "single process"), write)
