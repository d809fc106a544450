"""Types of the campaign's values: numbers within sane bounds, and texts that are one printable line.

What a campaign says reaches shell scripts, Slurm options, file names and pages, where it is quoted; a line
break or a control character has no business in any of them.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from hpcbackmap.runtime.parsing import not_printable

__all__ = [
    "Bound",
    "Depth",
    "Fraction",
    "Frames",
    "Line",
    "Megabytes",
    "Members",
    "Minutes",
    "Name",
    "Neighbours",
    "Nodes",
    "Rate",
    "Seed",
    "Steps",
    "StepsOrNone",
    "Weight",
    "Width",
]


def _one_line(text: str) -> str:
    found = not_printable(text)
    if found:
        raise ValueError(f"write one printable line; {text[:60]!r} has the character {found}")
    return text


Line = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)]
Letters = Annotated[str, Field(min_length=1, max_length=10**6), AfterValidator(_one_line)]
"""One for each residue, or a name."""
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


Steps = Annotated[int, Field(gt=0, le=10**9)]
StepsOrNone = Annotated[int, Field(ge=0, le=10**9)]
Frames = Annotated[int, Field(gt=0, le=10**6)]
Members = Annotated[int, Field(gt=0, le=10_000)]
Nodes = Annotated[int, Field(gt=0, le=100_000)]
Width = Annotated[int, Field(gt=0, le=4096)]
Depth = Annotated[int, Field(gt=0, le=64)]
Neighbours = Annotated[int, Field(gt=0, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Bound = Annotated[float, Field(gt=0, le=1e6)]
Megabytes = Annotated[float, Field(gt=0, le=1e6)]
Minutes = Annotated[float, Field(gt=0, le=1e7)]
