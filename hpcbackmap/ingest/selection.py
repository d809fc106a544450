"""Which particles of a file are meant."""

import mdtraj
import numpy as np

from hpcbackmap.config.campaign import SystemConfig
from hpcbackmap.runtime.errors import ConfigError

__all__ = ["select_particles"]


def select_particles(file_topology: mdtraj.Topology, config: SystemConfig) -> np.ndarray:
    """File indices, int64: `beads` in their order, or `selection`, or all.

    Raises ConfigError for a selection that mdtraj does not understand or that is empty, and for `beads` that
    are not one different particle each.
    """
    if config.beads is not None:
        return _listed(file_topology, config)
    if config.selection is None:
        return np.arange(file_topology.n_atoms)
    selected = _select(file_topology, config.selection, config.name)
    if len(selected) == 0:
        raise ConfigError(f"system {config.name}: selection {config.selection!r} selects no atom")
    return selected


def _listed(file_topology: mdtraj.Topology, config: SystemConfig) -> np.ndarray:
    found: list[int] = []
    for item in config.beads or []:
        if isinstance(item, str):
            here = _select(file_topology, item, config.name)
            if len(here) != 1:
                raise ConfigError(
                    f"system {config.name}: bead {len(found)}: {item!r} selects {len(here)} particles, "
                    "not one"
                )
            item = int(here[0])
        if not 0 <= item < file_topology.n_atoms:
            raise ConfigError(
                f"system {config.name}: bead {len(found)}: no particle {item}; the file has 0 to "
                f"{file_topology.n_atoms - 1}"
            )
        if item in found:
            raise ConfigError(
                f"system {config.name}: beads {found.index(item)} and {len(found)} are both "
                f"particle {item}"
            )
        found.append(item)
    return np.array(found, dtype=np.int64)


def _select(file_topology: mdtraj.Topology, selection: str, system: str) -> np.ndarray:
    try:
        return np.asarray(file_topology.select(selection), dtype=np.int64)
    except Exception as error:  # mdtraj passes on whatever its parser meets
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"system {system}: selection {selection!r} is not understood ({reason})"
        ) from None
