"""Processes of their own without the price of their imports: forked from one that has imported the package.

`Forked` is used like `subprocess.Popen`, for words after ``python``: a program, ``-m module`` or ``-c code``.
The process has its own number, environment, folder, limits and end; only the seconds of importing torch and
DeepSpeed are shared. `rank_words` is for launchers: what they start hands all it was given to a forked process
and stands for it (`stand_in.py`). What tests starting itself starts Python as a user does.

One process for each process of tests forks what it is asked for through a socket: a message with words,
environment, folder and limit, and the three standard files; the answers are the number of the process, then its
exit code. Whoever closes the socket before has the process killed.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STAND_IN = Path(__file__).with_name("stand_in.py")
IMPORTS = (
    "deepspeed.ops",
    "torch._dynamo",  # torch's optimisers import it when they are made
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
LARGEST = 1 << 17
"""Bytes of a message."""


class Forked:
    """A running Python. Standard error goes where the output goes unless it is asked for apart."""

    def __init__(self, words, env, *, apart: bool = False, limit: int | None = None, cwd=None):
        self._output = [tempfile.TemporaryFile() for _ in range(1 + apart)]  # noqa: SIM115 (it stays open)
        task = {
            "words": [str(word) for word in words],
            "env": {key: str(value) for key, value in env.items()},
            "cwd": str(cwd or Path.cwd()),
            "limit": limit,
        }
        self._asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked.connect(_server())
        with open(os.devnull) as nothing:
            files = [nothing.fileno(), self._output[0].fileno(), self._output[-1].fileno()]
            socket.send_fds(self._asked, [json.dumps(task).encode()], files)
            self.pid = int(self._asked.recv(LARGEST))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._asked], [], [], 0)[0]:
            self.returncode = int(self._asked.recv(LARGEST))
            self._asked.close()
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
        return self._read(0), self._read(1) if len(self._output) > 1 else ""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _read(self, which: int) -> str:
        file = self._output[which]
        file.seek(0)
        return file.read().decode(errors="replace")


def rank_words() -> list[str]:
    """What stands for ``python`` behind a launcher: its ranks are forked, with all that it gave them."""
    return [sys.executable, "-I", "-S", str(STAND_IN), _server()]


@functools.cache
def _server() -> str:
    """Socket of the process that forks, one for each process of tests."""
    folder = tempfile.TemporaryDirectory(prefix="forked-")
    place = str(Path(folder.name) / "socket")
    server = subprocess.Popen(
        [sys.executable, __file__, place],
        env=os.environ | CPU | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(folder.cleanup)
    atexit.register(_end, server)
    server.stdout.readline()
    return place


def _end(server: subprocess.Popen) -> None:
    server.stdin.close()
    server.wait()


def serve(place: str) -> None:
    """Fork what is asked for at a socket until standard input closes."""
    for name in IMPORTS:
        importlib.import_module(name)
    assert "mpi4py.MPI" not in sys.modules, "MPI must begin in the process that uses it"
    assert threading.active_count() == 1, "a process with threads must not fork"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(place)
    listening.listen(64)
    print("ready", flush=True)
    os.dup2(2, 1)
    asked: dict[int, socket.socket] = {}
    while True:
        awaited = [0, listening, *asked.values()]
        ready, _, _ = select.select(awaited, [], [], POLL if asked else None)
        if 0 in ready:  # without the seconds in which an interpreter full of torch is taken apart
            os._exit(0)
        if listening in ready:
            asker, _ = listening.accept()
            pid = _fork(asker, [listening, *asked.values()])
            asked[pid] = asker
        for pid, asker in asked.items():
            if asker in ready:  # it has nothing more to ask: it is gone
                os.kill(pid, signal.SIGKILL)
        _bury(asked)


def _fork(asker: socket.socket, others: list[socket.socket]) -> int:
    message, files, _, _ = socket.recv_fds(asker, LARGEST, 3)
    pid = os.fork()
    if pid == 0:
        for each in [asker, *others]:
            each.close()
        _become(json.loads(message), files)
    for file in files:
        os.close(file)
    asker.send(str(pid).encode())
    return pid


def _bury(asked: dict[int, socket.socket]) -> None:
    """Tell the codes of the children that have ended."""
    for pid in list(asked):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with asked.pop(pid) as asker, contextlib.suppress(OSError):
                asker.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(task: dict, files: list[int]) -> None:
    code = 1
    try:
        _take_on(task, files)
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
            _leave_mpi()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _leave_mpi() -> None:
    """As the interpreter does at its end."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()


def _take_on(task: dict, files: list[int]) -> None:
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["cwd"])
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
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
    serve(sys.argv[1])
