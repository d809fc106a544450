"""Processes of their own without the price of their imports: forked from one that has imported the package.

`Forked` is used like `subprocess.Popen`, for words after ``python``: a program, ``-m module`` or ``-c code``.
The process has its own number, environment, folder, limits and end; only the seconds of importing torch and
DeepSpeed are shared. What tests starting itself, or a launcher, starts Python as a user does.
"""

import atexit
import contextlib
import functools
import importlib
import itertools
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORTS = (
    "deepspeed.ops",
    "torch._inductor.compile_fx",  # DeepSpeed calls torch.compile while it is imported
    "torch.utils.tensorboard",
    "hpcbackmap.training.trainer",
    "hpcbackmap.backmapping.driver",
    "hpcbackmap.backmapping.files",
    "hpcbackmap.evaluation.likelihood",
    "hpcbackmap.report.report",
    "hpcbackmap.cli.app",
    *(f"hpcbackmap.cli.{name}" for name in ("backmap", "evaluate", "inspection", "train")),
)
CPU = {"DS_ACCELERATOR": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
POLL = 0.01
_numbers = itertools.count()


class Forked:
    """A running Python. Standard error goes where the output goes unless it is asked for apart."""

    def __init__(self, words, env, *, apart: bool = False, limit: int | None = None):
        server, folder = _server()
        self._ended = folder / f"{next(_numbers)}.code"
        self._output = [self._ended.with_suffix(f".{name}") for name in ("out", "err")]
        task = {
            "words": [str(word) for word in words],
            "env": {key: str(value) for key, value in env.items()},
            "cwd": str(Path.cwd()),
            "output": [str(self._output[0]), str(self._output[apart])],
            "limit": limit,
            "ended": str(self._ended),
        }
        server.stdin.write(json.dumps(task) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self._ended.exists():
            self.returncode = int(self._ended.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout or float("inf"))
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(str(self.pid), timeout, self._read(0))
            time.sleep(POLL)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and error of the ended process."""
        self.wait(timeout)
        return self._read(0), self._read(1)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _read(self, which: int) -> str:
        path = self._output[which]
        return path.read_text(errors="replace") if path.exists() else ""


@functools.cache
def _server() -> tuple[subprocess.Popen, Path]:
    """The process that forks, one for each process of tests, and a folder for what its children write."""
    folder = tempfile.TemporaryDirectory(prefix="forked-")
    server = subprocess.Popen(
        [sys.executable, __file__],
        env=os.environ | CPU | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(folder.cleanup)
    atexit.register(_end, server)
    return server, Path(folder.name)


def _end(server: subprocess.Popen) -> None:
    server.stdin.close()
    server.wait()


def serve() -> None:
    """Fork what standard input asks for, a line each, until it closes; answer with process numbers."""
    answers = os.dup(1)
    os.dup2(2, 1)
    for name in IMPORTS:
        importlib.import_module(name)
    assert "mpi4py.MPI" not in sys.modules, "MPI must begin in the process that uses it"
    assert threading.active_count() == 1, "a process with threads must not fork"
    ended: dict[int, str] = {}
    waiting = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL if ended else None)
        if ready:
            read = os.read(0, 1 << 20)
            if not read:  # without the seconds in which an interpreter full of torch is taken apart
                os._exit(0)
            *lines, waiting = (waiting + read).split(b"\n")
            for line in lines:
                task = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    os.close(answers)
                    _become(task)
                ended[pid] = task["ended"]
                os.write(answers, f"{pid}\n".encode())
        _bury(ended)


def _bury(ended: dict[int, str]) -> None:
    """Write down the codes of the children that have ended."""
    for pid in list(ended):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = Path(ended.pop(pid))
            code.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
            code.with_suffix(".new").rename(code)


def _become(task: dict) -> None:
    code = 1
    try:
        _take_on(task)
        _run(task["words"])
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _take_on(task: dict) -> None:
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(task["output"], 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if task["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["limit"], task["limit"]))


def _run(words: list[str]) -> None:
    """As ``python words`` would."""
    first, *rest = words
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    serve()
