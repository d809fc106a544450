"""The adapter between launchers and ranks."""

import pytest

from hpcbackmap.runtime.errors import ConfigError, OutputError, ResourceError
from hpcbackmap.training.ranks.world import World, on_rank_zero, pick_device, read_world

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
MPICH = {"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "2",
    "SLURM_NTASKS": "8",
}
HETEROGENEOUS = {
    "SLURM_LOCALID": "1",
    "SLURM_HET_SIZE": "2",
    "SLURM_NTASKS_HET_GROUP_0": "2",
    "SLURM_NTASKS_HET_GROUP_1": "3",
}


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        ({}, World(0, 1, 0, "single process")),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, World(1, 4, 1, "torchrun")),
        (OPEN_MPI, World(3, 4, 1, "Open MPI")),
        # Open MPI 4 and 5 say it in PMIx's words too.
        (OPEN_MPI | {"PMIX_RANK": "3"}, World(3, 4, 1, "Open MPI")),
        (MPICH, World(2, 3, 0, "PMI")),
        (MPICH | {"I_MPI_HYDRA_UUID": "1"}, World(2, 3, 0, "PMI")),
        ({"PMI_RANK": "2", "PMI_SIZE": "3", "PMI_LOCAL_RANK": "1"}, World(2, 3, 1, "PMI")),
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, World(2, 3, 2, "PMI")),
        (SLURM, World(5, 8, 2, "Slurm")),
        # srun --mpi=pmi2, and --mpi=pmix, which tells no size of its own.
        (SLURM | {"PMI_RANK": "5", "PMI_SIZE": "8", "PMI_FD": "11"}, World(5, 8, 2, "PMI")),
        (SLURM | {"PMIX_RANK": "5"}, World(5, 8, 2, "Slurm")),
        # Batch scripts export the size for all, srun gives the rank.
        (SLURM | {"WORLD_SIZE": "8"}, World(5, 8, 2, "Slurm")),
        # One group of a heterogeneous job counts for itself; a step over both groups counts through.
        (
            HETEROGENEOUS | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3"},
            World(1, 3, 1, "Slurm"),
        ),
        (
            HETEROGENEOUS | {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "5"},
            World(3, 5, 1, "Slurm"),
        ),
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
        (
            {"RANK": "6", "WORLD_SIZE": "8", "LOCAL_RANK": "2"} | OPEN_MPI,
            World(6, 8, 2, "torchrun"),
        ),
        # An interactive shell of Slurm is a step of one task.
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, World(0, 1, 0, "Slurm")),
        ({"WORLD_SIZE": "1"}, World(0, 1, 0, "single process")),
    ],
)
def test_world_of_each_launcher(environ, world):
    assert read_world(environ) == world


@pytest.mark.parametrize("outer", [OPEN_MPI, SLURM, {"PMI_RANK": "0", "PMI_SIZE": "2"}])
def test_ranks_that_each_believe_to_be_alone_are_refused(outer):
    with pytest.raises(ResourceError, match="every rank believes to be 0 of 1"):
        read_world(outer | {"RANK": "0", "WORLD_SIZE": "1"})


@pytest.mark.parametrize(
    ("environ", "culprit"),
    [
        ({"RANK": "2"}, "RANK=2 is set, WORLD_SIZE is not"),
        ({"RANK": "0"} | SLURM, "RANK=0 is set, WORLD_SIZE is not"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 is set, RANK is not"),
        # A batch script that forgot srun.
        ({"WORLD_SIZE": "8", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, "WORLD_SIZE=8 is set"),
        (SLURM | {"WORLD_SIZE": "4"}, "WORLD_SIZE=4 is set, RANK is not"),
        ({"PMIX_RANK": "1"}, "PMIX_RANK=1 says that an MPI launcher started"),
        ({"PMI_RANK": "0"}, "PMI_SIZE does not say how many"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE does not say how many"),
    ],
)
def test_half_of_what_a_launcher_says_is_refused_by_name(environ, culprit):
    with pytest.raises(ResourceError, match=culprit):
        read_world(environ)


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
