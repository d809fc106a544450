"""The example ensemble, ingested, and one training of it that nothing disturbed."""

import shutil
from pathlib import Path

import pytest
from runs import DEEPSPEED, SETTINGS, curve, finish, start

from hpcbackmap.config.load import load_campaign


@pytest.fixture(scope="session")
def example(made_once, example_dir) -> list[str]:
    """Campaign file and overrides, the frames ingested."""
    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import LocalComm

    def arguments(folder: Path) -> list[str]:
        return [str(folder / "campaign.yaml"), *SETTINGS, f"store.path={folder / 'frames.zarr'}"]

    def make(folder: Path) -> None:
        for name in ("campaign.yaml", "trpcage.xtc", "trpcage_top.pdb"):
            shutil.copy(example_dir / name, folder)
        campaign, *overrides = arguments(folder)
        ingest(load_campaign(campaign, overrides), LocalComm())

    return arguments(made_once("example", make))


@pytest.fixture(scope="session")
def undisturbed(example, made_once) -> dict:
    """Curve of two ranks under the deepspeed launcher."""
    return curve(made_once("undisturbed", lambda folder: finish(start(DEEPSPEED, example, folder))))
