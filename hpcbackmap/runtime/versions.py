"""Versions of libraries, for records of what numbers depend on."""

import platform
from importlib import metadata

from hpcbackmap import __version__

__all__ = ["versions"]


def versions(*names: str) -> dict[str, str]:
    """Version of each of ``names`` (distributions, or ``python``) that is installed; imports none."""
    found = {}
    for name in names:
        if name == "hpcbackmap":
            found[name] = __version__
        elif name == "python":
            found[name] = platform.python_version()
        else:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return found
