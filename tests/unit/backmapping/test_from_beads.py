"""From beads of many residues and a sequence to atoms with the two stages of the package."""

import mdtraj
import numpy as np
import pytest
import torch
import yaml

from hpcbackmap.backmapping.chain import Chain, load_chain
from hpcbackmap.config.load import load_campaign
from hpcbackmap.metrics.beads import bead_error
from hpcbackmap.metrics.peptide import link_lengths
from hpcbackmap.protein.chirality import chiral_volumes
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder, resolution_name, runs_spec
from hpcbackmap.runtime.shipped_weights import shipped_artifact


def chain_on(topology, spec):
    """Ladder and chain of the stages that come with the package."""
    ladder = build_ladder(topology, ["fg", "ca", spec])
    rungs = [f"{ladder.resolutions[2]}-ca", "ca-fg"]
    folders = {rungs[0]: shipped_artifact(rungs[0], "trace"), rungs[1]: shipped_artifact()}
    return ladder, Chain(load_chain(folders, rungs), ladder, torch.device("cpu"))


@pytest.fixture(scope="module")
def protein(data_dir):
    """A chain of a family that no stage of the package has seen."""
    file = data_dir / "static_more" / "1f" / "1f51_A_1.pdb.gz"
    if not file.exists():
        pytest.skip(f"no {file}")
    frame = mdtraj.load(str(file))
    topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], file.name)
    positions = frame.xyz[:, index].astype(np.float64)
    return topology, positions - positions.mean(1, keepdims=True)


@pytest.mark.parametrize("spec", ["ucg:/4", "ucg:/10", "uneven"])
def test_beads_become_whole_molecules(protein, spec):
    topology, positions = protein
    if spec == "uneven":
        spec = runs_spec([6, 14, 3, 9, 25, 20, 15, 11])
    ladder, chain = chain_on(topology, spec)
    beads = ladder.coarsen(positions)[ladder.resolutions[2]].astype(np.float32)
    for members in ([0, 1], [None]):
        made = chain.run_members(beads, [0], members, seed=1)
        for levels in made:
            assert bead_error(ladder, levels["fg"], beads).max() < 1e-5, "nm"
            assert (chiral_volumes(topology, levels["fg"]) > 0).all(), "every residue is L"
            assert link_lengths(topology, levels["fg"]).max() < 0.16
            gap = np.linalg.norm(np.diff(levels["ca"][0], axis=0), axis=-1)
            assert gap.min() > 0.27
            assert gap.max() < 0.41
    first, second = (levels["ca"] for levels in chain.run_members(beads, [0], [0, 1], seed=1))
    assert np.abs(first - second).max() > 0.05, "members differ"


def test_several_chains_with_a_break_and_short_ones():
    """Three chains, one of two beads; what a chain is made of does not hang on the others' order."""
    topology = topology_from_sequence(["ACDEFGHIKLMNPQRSTVWY", "GASTGASTG", "MKVLAAGIVG"])
    ladder, chain = chain_on(topology, "ucg:5,5,5,5,4,5,5,5")
    steps = np.arange(topology.n_residues)[:, None] * [0.15, 0.0, 0.0]
    turn = np.radians(100) * np.arange(topology.n_residues)
    helix = steps + 0.23 * np.stack([0 * turn, np.cos(turn), np.sin(turn)], 1)
    helix[:, 1] += 1.2 * np.array(topology.chain_index)
    beads = ladder.mappings[1].apply(helix)[None].astype(np.float32)
    for levels in chain.run_members(beads, [0], [0, 1], seed=0):
        assert np.isfinite(levels["fg"]).all()
        assert bead_error(ladder, levels["fg"], beads).max() < 1e-5
        assert (chiral_volumes(topology, levels["fg"]) > 0).all()


def test_a_campaign_may_say_shipped_for_both_rungs(tmp_path):
    name, path = resolution_name("ucg:8,12,10"), tmp_path / "campaign.yaml"
    stages = {f"{name}-ca": {"model": {"kind": "trace"}}, "ca-fg": {"model": {"kind": "genzprot"}}}
    record = {
        "name": "unseen",
        "ladder": ["fg", "ca", "ucg:8,12,10"],
        "systems": [
            {"name": "a", "trajectories": ["a.xtc"], "resolution": name, "sequence": "A" * 30}
        ],
        "stages": {rung: stage | {"artifact": "shipped"} for rung, stage in stages.items()},
    }
    path.write_text(yaml.safe_dump(record))
    found = {rung: stage.artifact for rung, stage in load_campaign(path).stages.items()}
    assert found == {
        f"{name}-ca": str(shipped_artifact(kind="trace")),
        "ca-fg": str(shipped_artifact()),
    }
