"""Files and folders: written whole or not at all, by one run at a time, and what their failure is called.

What is written stands under a scratch name of its own process until it is on the disk, and then gets its
name. A lock beside an output names the run that writes it; it falls with the process, however that dies.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import stat
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from hpcbackmap.runtime.errors import HpcbackmapError, InputError, OutputError, ResourceError

__all__ = [
    "UNWRITABLE",
    "Lock",
    "ascii_name",
    "commit",
    "flush",
    "free_output",
    "is_held",
    "is_url",
    "only_writer",
    "read_regular",
    "reason",
    "remove_leftovers",
    "require_file",
    "scratch_of",
    "sha256_of",
    "write_json",
    "write_whole",
    "writing",
]

log = logging.getLogger(__name__)

UNWRITABLE = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What a disk that takes no more says, rather than a defect of this package."""
BLOCK = 1 << 20
NAME_BYTES = 120
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})
"""What flock says on file systems mounted without it, as some of Lustre and NFS are."""


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


def reason(error: Exception) -> str:
    """What an object store's client says, in a line."""
    return textwrap.shorten(str(error) or type(error).__name__, 150, placeholder=" …")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns a failed write (full disk, no permission, an object store that does not answer) into OutputError
    that names ``path``.
    """
    try:
        yield
    except HpcbackmapError:
        raise
    except OSError as error:
        said = error.strerror or str(error)
        if "requested and" in said:  # of numpy, which counts numbers
            said = f"No space left on device ({said})"
        raise OutputError(f"{path}: {said}") from None
    except Exception as error:  # clients of object stores have error classes of their own
        if not is_url(path):
            raise
        raise OutputError(f"{path}: {reason(error)}") from None


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ascii_name(path: str | Path) -> str:
    """A name of the same file for readers and writers in C, which know no others than ASCII.

    The path itself, or one through a link in a folder of this process that goes when it ends; the link is to
    the file's folder, which a writer that removes the file first leaves alone, unless the name is foreign, too.
    """
    text = str(path)
    if text.isascii():
        return text
    folder, name = os.path.split(os.path.abspath(text))
    return (
        os.path.join(_link(folder), name) if name.isascii() else _link(os.path.join(folder, name))
    )


@cache
def _link(path: str) -> str:
    folder = _links()
    suffix = "".join(Path(path).suffixes[-2:])
    link = Path(folder.name) / f"{len(os.listdir(folder.name))}{suffix if suffix.isascii() else ''}"
    link.symlink_to(path)
    return str(link)


@cache
def _links() -> tempfile.TemporaryDirectory[str]:
    place = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(
        prefix="hpcbackmap-",
        dir=place if place.isascii() else "/tmp",  # noqa: S108  # a folder of its own in it
    )


def require_file(path: str | Path) -> None:
    """Refuse what cannot be read twice, as every input is: devices, pipes, folders. Raises InputError.

    What is not there is left to who opens it.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (
        OSError
    ) as error:  # a loop of links, a name too long, a folder that may not be looked into
        raise InputError(f"{path}: {error.strerror or error}") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise InputError(f"{path}: {kind}, no file that can be read")


def read_regular(path: str | Path) -> bytes:
    """Contents of a file of ours, which may have been replaced: no pipe is waited for, no device read for ever.

    Raises InputError for what is no regular file, FileNotFoundError, OSError.
    """
    require_file(path)
    return Path(path).read_bytes()


def sha256_of(*paths: str | Path) -> str:
    """Of the bytes of one file, or of several one after another, as hexadecimal digits.

    Raises OSError, InputError for what is no regular file.
    """
    digest = hashlib.sha256()
    for path in paths:
        require_file(path)
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def scratch_of(path: Path) -> Path:
    """Where this process writes ``path`` until it is whole: hidden, in the same folder, of the same suffix,
    with a name in ASCII.
    """
    process = f"{socket.gethostname()}-{os.getpid()}"
    return path.with_name(f".{_short(path.stem)}.{process}.part{path.suffix}")


def _short(name: str) -> str:
    """A name in ASCII that leaves room for more where a file system takes 255 bytes, as distinct as it was."""
    if name.isascii() and len(name) <= NAME_BYTES:
        return name
    distinct = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return name.encode("ascii", "ignore").decode()[:NAME_BYTES] + distinct


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, over one that is there; it is on the disk when this returns. Its folder
    is made if there is none.

    Raises OutputError that names ``path``.
    """
    scratch = scratch_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_bytes(content.encode() if isinstance(content, str) else content)
            commit(scratch, path)
        except OSError:
            with suppress(OSError):
                scratch.unlink()
            raise


def write_json(path: Path, record: Any, indent: int | None = 1) -> None:
    """`write_whole` of a JSON record."""
    write_whole(path, json.dumps(record, indent=indent))


def commit(scratch: Path, path: Path) -> None:
    """Give a finished file or folder its name, durably, over a file that has it. Raises OSError."""
    if scratch.is_dir():
        for item in scratch.rglob("*"):
            flush(item)
    flush(scratch)
    os.replace(scratch, path)
    flush(path.parent)


def free_output(path: Path, force: bool) -> None:
    """Refuse to write over what is there: a file or folder unless ``force``; devices and pipes always.

    Raises OutputError.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.is_symlink():
            return
        raise OutputError(f"{path}: a link to nothing; remove it, or choose another name") from None
    except OSError as error:  # a loop of links, a folder that may not be looked into
        raise OutputError(f"{path}: {error.strerror or error}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(f"{path}: a device or a pipe; give a file that can be written")
    if not force:
        raise OutputError(f"{path}: exists already; remove it, choose another name, or add --force")


def remove_leftovers(path: Path) -> None:
    """Remove what killed runs left of ``path``, and say so. Only for who holds the lock of ``path``."""
    if not path.parent.is_dir():
        return
    begin, end = f".{_short(path.stem)}.", f".part{path.suffix}"
    for other in path.parent.iterdir():
        name = other.name
        if not (name.startswith(begin) and name.endswith(end)):
            continue
        host, dash, process = name[len(begin) : -len(end)].rpartition("-")
        if not dash or not process.isdigit() or _may_live(host, int(process)):
            continue
        log.warning("%s: left by a run that was killed, removed", other)
        with suppress(OSError):
            shutil.rmtree(other) if other.is_dir() else other.unlink()


def _may_live(host: str, process: int) -> bool:
    """Whether a process may be at work; of another host that is not known, and no harm is done to it."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Lock:
    """A held lock file. ``sign`` writes who holds it, for others to read; `close` lets it go."""

    def __init__(self, path: Path, file: IO[str]):
        self.path, self._file = path, file

    def sign(self) -> None:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @classmethod
    def take(
        cls, path: Path, what: str | Path, shared: bool = False, doing: str = "writing"
    ) -> "Lock":
        """The lock at ``path`` of the output ``what``; several may hold it ``shared``.

        Raises ResourceError that names who holds it. Where the file system has no locks, that is told, and
        the lock is as if held.
        """
        while True:
            file = path.open("a+")
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(file)
                file.close()
                raise ResourceError(
                    f"{what}: {holder} is {doing} it; wait for it, or stop it"
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    file.close()
                    raise
                log.warning("%s: this file system has no locks; start one run at a time", what)
            if os.fstat(file.fileno()).st_nlink:
                return cls(path, file)
            file.close()  # who held it removed it meanwhile: this is no longer the file of that name


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at ``path``."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        pass
    return False


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the one process that writes ``path``: holds ``.NAME.lock`` beside it, and removes it at the end.

    What killed runs left of ``path`` is removed, and told. Raises ResourceError that names the other run,
    OutputError where the folder takes no file.
    """
    with writing(path):
        lock = Lock.take(path.with_name(f".{_short(path.name)}.lock"), path)
    try:
        lock.sign()
        remove_leftovers(path)
        yield
    finally:
        with suppress(OSError):
            lock.path.unlink()
        lock.close()


def _holder(file: IO[str]) -> str:
    """Who signed a lock last. A holder signs soon after it has the lock, not at once."""
    file.seek(0)
    return (file.read().strip().splitlines() or ["another process"])[-1]
