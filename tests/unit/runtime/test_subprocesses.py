"""Commands side by side: lines merged, output kept, one failure or a Ctrl-C stops them all."""

import os
import signal
import sys
import threading
import time

import pytest

from hpcbackmap.runtime.errors import IncompleteError
from hpcbackmap.runtime.subprocesses import run_together

PATIENT = """
import signal, sys, time
def stop(*_):
    print("12:00:00 checkpoint written", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("12:00:00 started", flush=True)
time.sleep(60)
"""
TALKATIVE = "print('noise'); print('12:00:00 step 1')"
FAILING = """
import sys, time
time.sleep(0.5)
sys.exit("hpcbackmap: error: no luck")
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_log_lines_are_shown_and_all_output_is_kept(tmp_path, capsys):
    run_together({"a": python(TALKATIVE), "bb": python(TALKATIVE)}, tmp_path, dict(os.environ))
    shown = capsys.readouterr().out.splitlines()
    assert sorted(line.split() for line in shown) == [["a", "step", "1"], ["bb", "step", "1"]]
    assert (tmp_path / "bb.log").read_text() == "noise\n12:00:00 step 1\n"


def test_a_failure_stops_the_others_and_says_why(tmp_path):
    begun = time.monotonic()
    with pytest.raises(IncompleteError, match=r"b: no luck .*b\.log"):
        run_together({"a": python(PATIENT), "b": python(FAILING)}, tmp_path, dict(os.environ))
    assert time.monotonic() - begun < 20
    assert "checkpoint written" in (tmp_path / "a.log").read_text()


def test_an_interrupt_lets_the_children_finish_their_checkpoint(tmp_path):
    def interrupt():
        while "started" not in (log.read_text() if log.exists() else ""):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts pytest in the background lets it ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    log = tmp_path / "a.log"
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_together({"a": python(PATIENT)}, tmp_path, dict(os.environ))
    finally:
        signal.signal(signal.SIGINT, before)
    assert "checkpoint written" in log.read_text()
