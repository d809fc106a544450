"""Stop signals are noted while work goes on, and are as before afterwards."""

import signal
import threading

import pytest

from hpcbackmap.runtime.stopping import StopSignals


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT"])
def test_a_signal_is_noted_and_the_work_goes_on(name):
    number = signal.Signals[name]
    before = [signal.getsignal(each) for each in StopSignals.SIGNALS]
    with StopSignals() as stop:
        assert stop.received is None
        signal.raise_signal(number)
        assert stop.received == name
    assert [signal.getsignal(each) for each in StopSignals.SIGNALS] == before


def test_whoever_presses_control_c_twice_means_it():
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert stop.received == "SIGTERM"


def test_handlers_are_as_before_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="broken"), StopSignals():
        raise ValueError("broken")
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_work_goes_on_without_signals():
    """As in a notebook or a web server that calls `backmap`."""
    seen = []

    def work():
        with StopSignals() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
