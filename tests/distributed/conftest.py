"""The example ensemble, ingested, and one training of it that nothing disturbed."""

import shutil

import pytest
from runs import DEEPSPEED, SETTINGS, curve, finish, start

from hpcbackmap.config.load import load_campaign


@pytest.fixture(scope="session")
def example(tmp_path_factory, example_dir) -> list[str]:
    """Campaign file and overrides, the frames ingested."""
    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import LocalComm

    folder = tmp_path_factory.mktemp("example")
    for name in ("campaign.yaml", "trpcage.xtc", "trpcage_top.pdb"):
        shutil.copy(example_dir / name, folder)
    arguments = [str(folder / "campaign.yaml"), *SETTINGS, f"store.path={folder / 'frames.zarr'}"]
    ingest(load_campaign(arguments[0], arguments[1:]), LocalComm())
    return arguments


@pytest.fixture(scope="session")
def undisturbed(example, tmp_path_factory) -> dict:
    """Curve of two ranks under the deepspeed launcher."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(DEEPSPEED, example, folder))
    return curve(folder)
