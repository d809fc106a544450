"""Errors a user can cause, each with the exit code that the commands return.

| code | class | meaning |
|---|---|---|
| 2 | ConfigError | the campaign or the command line is wrong |
| 3 | InputError | a trajectory, topology, store or artifact is unusable |
| 4 | OutputError | something could not be written |
| 5 | ResourceError | ranks, devices, a port or an object store are not to be had as asked for |
| 6 | IncompleteError | the run ended, but its counts do not add up, or structures could not be relaxed |
| 7 | DivergedError | a training has left the numbers, or learned nothing; nothing was published |
| 75 | Stopped | stopped on request; the same command continues |
| 130 | Interrupted | stopped on request or by Ctrl-C; the same command starts over |

Any other exception is a defect of this package and exits with 1.
"""

__all__ = [
    "ConfigError",
    "DivergedError",
    "HpcbackmapError",
    "IncompleteError",
    "InputError",
    "Interrupted",
    "OutputError",
    "ResourceError",
    "Stopped",
]


class HpcbackmapError(Exception):
    """Base class; the commands print its message in one line and no traceback."""

    exit_code = 1


class ConfigError(HpcbackmapError):
    exit_code = 2


class InputError(HpcbackmapError):
    exit_code = 3


class OutputError(HpcbackmapError):
    exit_code = 4


class ResourceError(HpcbackmapError):
    exit_code = 5


class IncompleteError(HpcbackmapError):
    exit_code = 6


class DivergedError(HpcbackmapError):
    exit_code = 7


class Stopped(HpcbackmapError):
    exit_code = 75


class Interrupted(HpcbackmapError):
    exit_code = 130
