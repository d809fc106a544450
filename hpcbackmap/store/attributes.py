"""What the group of a frame store says of itself, as it stands in its ``zarr.json``."""

from typing import Any, NotRequired, TypedDict

__all__ = ["Attributes", "SystemRecord"]


class SystemRecord(TypedDict):
    """One system. sources: file, first frame, frame after the last. ladder: where it lies among all ladders.
    residues: where the store has numbers of residues.
    """

    name: str
    frames: int
    particles: list[int]
    shard_frames: int
    sources: list[tuple[str, int, int]]
    ladder: tuple[int, int]
    pack: int | None
    residues: NotRequired[int]


class Attributes(TypedDict):
    """docs/format.md explains every key."""

    format: str
    format_version: int
    complete: bool
    resolutions: list[str]
    observables: dict[str, str]
    quantised: bool
    packs: int
    systems: list[SystemRecord]
    provenance: dict[str, Any]
    digest: str
    ladders_sha256: NotRequired[str]
    content: NotRequired[str]
    frames_made_whole: NotRequired[int]
    residue_values: NotRequired[dict[str, str]]
    structures: NotRequired[dict[str, Any]]
