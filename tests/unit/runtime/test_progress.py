"""What rank 0 says of the work of all."""

import logging

import pytest

from hpcbackmap.runtime import progress
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.runtime.progress import Progress, set_pause


@pytest.fixture(autouse=True)
def default_pause():
    yield
    progress._asked.clear()


def lines(caplog, pause, **options) -> list[str]:
    set_pause(pause)
    with caplog.at_level(logging.INFO), Progress(LocalComm(), 10, "frames", **options) as shown:
        for _ in range(4):
            shown.tell(2, given_up=1, seconds=0.5)
    return caplog.messages


def test_a_line_whenever_it_is_time_and_one_at_the_end(caplog):
    said = lines(caplog, 1e-9, earlier=2, given_up="bad")
    assert [line.partition(",")[0] for line in said] == [
        *(f"{n} of 10 frames" for n in (4, 6, 8, 10)),
        "10 of 10 frames",
    ]
    assert "0:00:00 left" in said[3]
    assert said[1].endswith("2 bad")


def test_no_line_in_between_where_none_is_wanted(caplog):
    assert lines(caplog, 0) == ["8 of 10 frames"]


def test_who_leaves_with_an_error_does_not_wait_for_the_others():
    class Waits(LocalComm):
        def barrier(self):
            raise AssertionError("the others may never come")

    with pytest.raises(ZeroDivisionError), Progress(Waits(), 1, "frames"):
        raise ZeroDivisionError
