"""Stands for a process that `forked.py` forks: ``python -I -S stand_in.py SOCKET words`` is ``python words``.

A launcher starts it, and it costs next to nothing: environment, folder and standard files go to the forked
process, signals are passed on, and its end is that of the forked process.
"""

import json
import os
import signal
import socket
import sys

PASSED_ON = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


def main() -> None:
    place, *words = sys.argv[1:]
    task = {"words": words, "env": dict(os.environ), "cwd": os.getcwd(), "limit": None}
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked.connect(place)
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    socket.send_fds(asked, [json.dumps(task).encode()], [0, 1, 2])
    pid = int(asked.recv(64))
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = int(asked.recv(64))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
