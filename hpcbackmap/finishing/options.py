"""What a user may ask of whole structures, looked at before anything heavy is loaded."""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from hpcbackmap.runtime.errors import ConfigError, ResourceError

__all__ = [
    "NAMES",
    "PAIR",
    "PH",
    "require_disulphides",
    "require_names",
    "require_openmm",
    "require_ph",
]

PH = 7.0
NAMES = ("pdb", "amber", "charmm", "gromacs")
END = r"(?:([^:,\s-]+):)?(-?\d+)([A-Za-z]?)"
PAIR = re.compile(f"{END}-{END}")


def require_ph(ph: float, name: str) -> None:
    """Raises ConfigError for what is no pH."""
    if not 0.0 <= ph <= 14.0:
        raise ConfigError(f"{name} {ph:g}: give a pH from 0 to 14")


def require_names(names: str, hydrogens: bool, output: Path | None) -> None:
    """Raises ConfigError for names that are not known, or that the output cannot hold."""
    if names not in NAMES:
        raise ConfigError(f"--names {names}: give {', '.join(NAMES)}")
    if names == "pdb":
        return
    if not hydrogens:
        raise ConfigError(
            f"--names {names}: names say which hydrogens a residue has; add --hydrogens"
        )
    if output is not None and output.suffix == ".zarr":
        raise ConfigError(
            f"--names {names}: {output} keeps no names, only what they follow from; write .pdb, .cif, .gro, "
            ".xtc or .dcd (the last two with a PDB file beside them)"
        )


def require_openmm(relax: bool, name: str) -> None:
    """Raises ResourceError if a minimisation is asked for and nothing here can do it."""
    if not relax:
        return
    if find_spec("openmm") is None:
        raise ResourceError(f"{name}: needs OpenMM (pip install 'hpcbackmap[md]')")
    try:
        import_module("openmm")
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(f"{name}: OpenMM is installed and does not load: {reason}") from None


def require_disulphides(text: str | None) -> None:
    """Raises ConfigError for what says no disulphides."""
    if text in (None, "auto", "none"):
        return
    for word in str(text).split(","):
        if not PAIR.fullmatch(word.strip()):
            raise ConfigError(
                f"--disulphides {text}: {word!r} is no pair; write A:5-A:55,A:14-A:38 (chain:number), auto "
                "or none"
            )
