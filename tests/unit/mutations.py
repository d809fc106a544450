"""Broken files for the fuzz tests: values of a JSON record exchanged or gone, text cut, filled or shuffled.

HPCBACKMAP_FUZZ=N draws N times as many examples, other ones each time; without it they are always the same.
A share of them, such as 0.25 for `make check`, are always the same as well.
"""

import json
import os
from copy import deepcopy

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["ODD", "bounded", "broken_json", "broken_text"]

TIMES = float(os.environ.get("HPCBACKMAP_FUZZ", "0"))
ODD = [
    None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, 10**30, -(10**30), 1.5, 1e308, float("nan"), float("inf"),
    "", "x", "1", "../../x", "a\nb", "\x1b[31m", "\udcff", "9" * 400, "float32", "fg", "ca", [], {}, [[]],
    [None], [0], ["x"], {"a": 1}, [1, 2, 3], [[0, 1], [1, 0]],
]  # fmt: skip


FILLINGS = [" ", "*", "-", "9", "A", "\t", "'", '"', "#", "_", "\x00", "é", "nan "]
WAYS = ["fill", "fill", "cut", "lose", "double", "swap", "empty", "insert"]


def bounded(examples: int):
    """Settings of a fuzz test."""
    return settings(
        max_examples=max(1, round(examples * (TIMES or 1))),
        derandomize=TIMES < 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def _places(record, path=()) -> list[tuple]:
    found = [path]
    if isinstance(record, dict | list):
        keys = record if isinstance(record, dict) else range(min(len(record), 3))
        for key in keys:
            found += _places(record[key], (*path, key))
    return found


@st.composite
def broken_json(draw, record) -> str:
    """Text of a record in which one to three values are odd, gone or doubled; or of which a part is lost."""
    broken = {"record": deepcopy(record)}
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(_places(broken)[1:]))
        here = broken
        for key in parents:
            here = here[key]
        what = draw(st.sampled_from(["odd", "odd", "gone", "longer", "grown"]))
        if what == "gone" and len(broken) and parents:
            del here[last]
        elif what == "longer" and isinstance(here[last], list | str):
            here[last] = here[last] + here[last]
        elif what == "grown" and type(here[last]) in (int, float):
            here[last] += draw(st.sampled_from([-1, 1, 10**6, 0.5]))
        else:
            here[last] = deepcopy(draw(st.sampled_from(ODD)))
    text = json.dumps(broken["record"])
    if draw(st.integers(0, 9)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text


@st.composite
def broken_text(draw, text: str) -> bytes:
    """Bytes of a text file in which lines are cut, doubled, exchanged or lost, or characters are others."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        if not lines:
            break
        row = draw(st.integers(0, len(lines) - 1))
        line = lines[row]
        at = draw(st.integers(0, max(0, len(line) - 1)))
        other = draw(st.integers(0, len(lines) - 1))
        width = draw(st.sampled_from([1, 2, 5, 8, 20]))
        filling = draw(
            st.sampled_from(
                [" ", "*", "-", "9", "A", "\t", "'", '"', "#", "_", "\x00", "é", "nan "]
            )
        )
        what = draw(
            st.sampled_from(["fill", "fill", "cut", "lose", "double", "swap", "empty", "insert"])
        )
        if what == "fill":
            lines[row] = line[:at] + (filling * width)[:width] + line[at + width :]
        elif what == "cut":
            lines[row] = line[:at]
        elif what == "lose":
            del lines[row]
        elif what == "double":
            lines.insert(other, line)
        elif what == "swap":
            lines[row], lines[other] = lines[other], lines[row]
        elif what == "empty":
            lines[row] = ""
        else:
            lines[row] = line[:at] + filling * width + line[at:]
    data = "\n".join([*lines, ""]).encode()
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    return data
