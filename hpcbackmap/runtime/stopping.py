"""Stop signals, noted when they come and obeyed at the next boundary of the work."""

import signal
import threading
from typing import Any

__all__ = ["StopSignals"]


class StopSignals:
    """While entered, SIGUSR1 (Slurm's warning), SIGTERM and SIGINT are noted in ``received``.

    A second SIGINT interrupts at once. Outside the main thread, where signals cannot be had, none is noted.
    """

    SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> "StopSignals":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
