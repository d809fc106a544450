"""What the variables of launchers say of a process."""

import pytest

from hpcbackmap.runtime.errors import ConfigError, ResourceError
from hpcbackmap.runtime.launcher import (
    World,
    asked_ranks,
    launched_by_mpi,
    launched_rank,
    places,
    refuse_half,
)

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
STEP = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environ", "name", "world"),
    [
        (TORCHRUN, "torchrun", World(1, 2, 0, "torchrun")),
        (OPEN_MPI, "Open MPI", World(3, 4, 1, "Open MPI")),
        (STEP, "Slurm", World(5, 8, 1, "Slurm")),
    ],
)
def test_each_launcher_is_understood(environ, name, world):
    assert places(environ) == {name: world}


def test_the_table_is_in_order_of_precedence():
    assert list(places(STEP | OPEN_MPI | TORCHRUN)) == ["torchrun", "Open MPI", "Slurm"]


def test_variables_that_a_shell_has_kept_say_nothing():
    assert places({"RANK": "", "WORLD_SIZE": "4", "SLURM_PROCID": "0"}) == {}
    assert launched_rank({"SLURM_PROCID": "7"}) == 0
    assert launched_rank(STEP) == 5
    assert launched_rank(STEP | OPEN_MPI) == 5


@pytest.mark.parametrize("change", [{"RANK": "one"}, {"RANK": "2"}, {"LOCAL_RANK": "-1"}])
def test_numbers_that_make_no_sense_are_refused(change):
    with pytest.raises(ConfigError):
        places(TORCHRUN | change)


@pytest.mark.parametrize(
    "environ", [{"RANK": "0"}, {"WORLD_SIZE": "4"}, {"PMIX_RANK": "0"}, {"PMI_RANK": "1"}]
)
def test_half_of_a_pair_is_refused(environ):
    """Every rank would train alone."""
    with pytest.raises(ResourceError):
        refuse_half(environ, places(environ))


@pytest.mark.parametrize(
    "environ", [{}, {"WORLD_SIZE": "1"}, TORCHRUN, OPEN_MPI | {"WORLD_SIZE": "4"}]
)
def test_whole_pairs_are_not(environ):
    refuse_half(environ, places(environ))


def test_who_starts_mpi_programs():
    assert launched_by_mpi(OPEN_MPI)
    assert launched_by_mpi({"HPCBACKMAP_MPI": "1"})
    assert not launched_by_mpi(TORCHRUN)
    assert not launched_by_mpi(STEP)
    assert asked_ranks(OPEN_MPI) == 4
    assert asked_ranks(STEP) == 8
    assert asked_ranks(TORCHRUN) == 1
    with pytest.raises(ConfigError):
        asked_ranks({"PMI_SIZE": "two"})
