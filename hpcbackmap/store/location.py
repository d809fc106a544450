"""Where a store is: a folder, or a URL of an object store (through fsspec)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcbackmap.runtime.errors import ConfigError, HpcbackmapError, ResourceError
from hpcbackmap.runtime.files import is_url, reason

__all__ = [
    "METADATA_ERRORS",
    "exists",
    "filesystem",
    "reaching",
    "remove",
    "require_backend",
    "size_of",
    "without_slash",
]


def without_slash(place: str | Path) -> str:
    """A URL that ends in / would make keys with an empty part."""
    place = str(place)
    return place.rstrip("/") if is_url(place) and not place.endswith("://") else place


def require_backend(place: str | Path) -> None:
    """Raises ConfigError if the package that serves this kind of URL is missing."""
    if not is_url(place):
        return
    kind = str(place).partition("://")[0]
    try:
        import fsspec

        fsspec.get_filesystem_class(kind)
    except (ImportError, ValueError):
        hint = "pip install 'hpcbackmap[s3]'" if kind == "s3" else "install its fsspec package"
        raise ConfigError(f"{place}: nothing here serves {kind}:// URLs; {hint}") from None


def exists(place: str) -> bool:
    """Whether there is anything. Raises ConfigError, ResourceError, for a folder OSError."""
    if not is_url(place):
        return Path(place).exists()
    files, path = filesystem(place)
    with reaching(place):
        found: bool = files.exists(path)
        return found


METADATA_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What Zarr raises for metadata that are half there or make no sense; it has no class of its own for that."""


@contextmanager
def reaching(place: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns what the client of an object store raises when it has no access into ResourceError; errors about
    files, those of a folder, and ``passing`` pass.
    """
    try:
        yield
    except (FileNotFoundError, HpcbackmapError):
        raise
    except passing:
        raise
    except Exception as error:  # every client has error classes of its own
        if not is_url(place):
            raise
        raise ResourceError(
            f"{place}: no access ({reason(error)}); are its address and the credentials right?"
        ) from None


def remove(place: str) -> None:
    """Everything below; nothing there is no error."""
    if not is_url(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    files, path = filesystem(place)
    if files.exists(path):
        files.rm(path, recursive=True)


def size_of(place: str) -> int:
    """Bytes of all files below."""
    if not is_url(place):
        return sum(item.stat().st_size for item in Path(place).rglob("*") if item.is_file())
    files, path = filesystem(place)
    found: int = files.du(path)
    return found


def filesystem(place: str) -> tuple[Any, ...]:
    """What serves a URL (fsspec), as it is now, and the path there. Raises ConfigError."""
    require_backend(place)
    import fsspec

    files, path = fsspec.core.url_to_fs(place)
    files.invalidate_cache()
    return files, path
