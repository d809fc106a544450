"""One Slurm for all tests of this folder."""

import pytest
from cluster import Cluster, missing


@pytest.fixture(scope="session")
def slurm():
    reason = missing()
    if reason:
        pytest.skip(reason)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
