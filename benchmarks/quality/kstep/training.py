"""Train one stage for so much CPU time, in a process of its own, and say what it cost.

    python benchmarks/quality/kstep/training.py CAMPAIGN STAGE

A machine that others use gives a process more or less of a second, so the budget of the campaign
(``train.max_minutes``) is counted in CPU seconds of this process here. Prints one line of JSON: wall and
CPU seconds of the whole training (calibration, loop, artifact), peak memory of the process, and the peak
before anything was read, which is that of the libraries.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["peak_mb", "train_in_process"]


class CpuClock:
    """The module ``time`` with a clock that stands still while others have the processor.

    The trainer counts from its first reading, when its loop begins. That reading is set back by ``paid``: what
    a stage has computed in closed form before comes out of the same budget.
    """

    def __init__(self):
        self.paid = 0.0

    def monotonic(self) -> float:
        paid, self.paid = self.paid, 0.0
        return time.process_time() - paid

    def __getattr__(self, name):
        return getattr(time, name)

    def charge(self, function: Callable) -> Callable:
        """``function``, whose CPU time is paid from the budget."""

        def charged(*arguments):
            began = time.process_time()
            result = function(*arguments)
            self.paid += time.process_time() - began
            return result

        return charged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("stage")
    arguments = parser.parse_args()
    import deepspeed  # noqa: F401
    import torch

    from hpcbackmap.config.load import load_campaign
    from hpcbackmap.training import run
    from hpcbackmap.training.trainer import train

    torch.set_num_threads(1)
    libraries, wall, cpu = peak_mb(), time.monotonic(), time.process_time()
    clock = run.time = CpuClock()
    run.Run.bring_to_start = clock.charge(run.Run.bring_to_start)
    result = train(load_campaign(arguments.campaign), arguments.stage)
    cost = {
        "wall_seconds": time.monotonic() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "budget_cpu_seconds": 60 * result["minutes"],
        "peak_mb": peak_mb(),
        "libraries_peak_mb": libraries,
    }
    print(
        json.dumps({**cost, **{key: result[key] for key in ("steps", "frames_seen", "parameters")}})
    )


def train_in_process(campaign: Path, stage: str) -> dict:
    """Cost of a training, which is not repeated: it lies in ``cost.json`` beside the artifact."""
    record = campaign.parent / "stages" / stage / "cost.json"
    if record.exists():
        return json.loads(record.read_text())
    command = [sys.executable, __file__, str(campaign), stage]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    cost = json.loads(done.stdout.splitlines()[-1])
    record.write_text(json.dumps(cost))
    return cost


def peak_mb() -> float:
    """Largest resident memory since this program began (``getrusage`` would count the parent's, too)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
