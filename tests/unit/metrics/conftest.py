"""What tests of metrics share."""

import pytest

from hpcbackmap.protein.named_residues import topology_from_mdtraj


@pytest.fixture(scope="module")
def example(example_run):
    """Topology and 100 frames of heavy atoms of the simulation that is the example."""
    whole = example_run
    topology, index, _ = topology_from_mdtraj(whole.topology, whole.xyz[0], "example")
    return topology, whole.xyz[:100, index]
