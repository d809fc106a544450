"""Where a store is: a folder, or a URL of an object store (through fsspec)."""

import shutil
from pathlib import Path

from hpcbackmap.errors import ConfigError

__all__ = ["exists", "is_url", "remove", "require_backend", "size_of"]


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


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
    """Whether there is anything. Raises ConfigError, OSError."""
    if not is_url(place):
        return Path(place).exists()
    files, path = _filesystem(place)
    return files.exists(path)


def remove(place: str) -> None:
    """Everything below; nothing there is no error."""
    if not is_url(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    files, path = _filesystem(place)
    if files.exists(path):
        files.rm(path, recursive=True)


def size_of(place: str) -> int:
    """Bytes of all files below."""
    if not is_url(place):
        return sum(item.stat().st_size for item in Path(place).rglob("*") if item.is_file())
    files, path = _filesystem(place)
    return files.du(path)


def _filesystem(place: str):
    require_backend(place)
    import fsspec

    files, path = fsspec.core.url_to_fs(place)
    files.invalidate_cache()
    return files, path
