"""Files of C-alpha atoms backmapped as a user does, for several tests."""

from pathlib import Path

from hpcbackmap.backmapping.files import backmap_files
from hpcbackmap.backmapping.request import Request
from hpcbackmap.runtime.mpi import LocalComm


def backmap(trajectory, output, top=None, members=1, seed=0, artifact=None, **more):
    """members: None for the mode. more: further keys of `Request`."""
    request = Request(
        output=Path(output), top=top and str(top), members=members or 1, mode=members is None, seed=seed,
        stages=(str(artifact),) if artifact else (), **more,
    )  # fmt: skip
    given = trajectory if isinstance(trajectory, list) else [trajectory]
    return backmap_files([str(path) for path in given], request, LocalComm())


def calpha_of(trajectory):
    return trajectory.xyz[:, trajectory.topology.select("name CA")]
