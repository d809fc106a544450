"""Trained stages that come with the package, in the folder `weights`."""

from importlib import resources
from pathlib import Path

from hpcbackmap.runtime.errors import InputError

__all__ = ["SHIPPED", "shipped_artifact"]

SHIPPED = "shipped"
"""Stands for the artifact of a stage in a campaign: ``artifact: shipped``, ``init_from: shipped``."""

BEADS = "beads-ca"
"""The stage that makes C-alpha atoms from beads of any number of residues."""


def shipped_artifact(stage: str = "ca-fg", kind: str | None = None) -> Path:
    """Folder of the trained stage of this name; of kind ``trace`` there is one for beads of any size.

    Raises InputError if this installation has none.
    """
    name = BEADS if kind == "trace" else stage
    folder = Path(str(resources.files("hpcbackmap"))) / "weights" / name
    if not (folder / "model.safetensors").is_file():
        raise InputError(
            f"{folder}: this installation has no trained stage; install a release that has, or give the "
            f"artifact of a trained {stage} stage with --artifact"
        )
    return folder
