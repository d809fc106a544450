"""What an input holds beside C-alpha atoms: backbones are kept, side-chain beads are reproduced."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from as_beads import read
from lysozyme import load_lysozyme

from hpcbackmap.backmapping.chain import Chain, Descent
from hpcbackmap.metrics.peptide import link_lengths
from hpcbackmap.metrics.rotamers import chi_right
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.calpha.trace import to_calpha
from hpcbackmap.stages.given import given_of
from hpcbackmap.stages.noise import frame_noise


@pytest.fixture(scope="module")
def protein(data_dir):
    """Lambda lysozyme, two frames of heavy atoms, and the shipped stage."""
    found = load_lysozyme(data_dir, stride=30)
    topology = found.topology
    positions = found.positions - found.positions.mean(1, keepdims=True)
    stage = load_artifact(shipped_artifact("ca-fg"))
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    return SimpleNamespace(topology=topology, positions=positions, stage=stage, system=system)


def answers(protein, name: str, given=True, members: int = 1, frames=slice(None)):
    """One answer [F, A, 3] and members [M, F, A, 3] from beads."""
    reading, positions = read(protein, name)
    positions = positions[frames]
    coarse = torch.from_numpy(to_calpha(reading, positions))
    held = given_of(reading, positions) if given else None
    numbers = np.arange(len(protein.positions))[frames].tolist()
    noises = [
        torch.from_numpy(
            frame_noise(0, "ca-fg", numbers, m, coarse.shape[1], protein.stage.noise_width)
        )
        for m in range(members)
    ]
    mode = protein.stage.mode(coarse, protein.system, held).numpy()
    drawn = protein.stage.samples(coarse, protein.system, noises, held)
    return mode, np.stack([member.numpy() for member in drawn])


def test_a_known_backbone_is_kept_and_its_side_chains_are_packed(protein):
    atoms = np.isin(protein.topology.atom_names, ("N", "CA", "C", "O"))
    mode, drawn = answers(protein, "backbone", members=2)
    for made in (mode, *drawn):
        assert np.abs(made[:, atoms] - protein.positions[:, atoms]).max() < 1e-5
        assert np.isfinite(made).all()
    assert chi_right(protein.topology, mode, protein.positions)["chi1"].mean() > 0.7
    assert np.abs(drawn[0] - drawn[1]).max() > 0.1


def test_oxygens_that_are_not_known_hang_on_the_known_atoms(protein):
    reading, positions = read(protein, "backbone")
    held = given_of(reading, positions)
    known = held.known.clone()
    known[:, :, 3:] = torch.nan
    coarse = torch.from_numpy(to_calpha(reading, positions))
    made = protein.stage.mode(coarse, protein.system, replace(held, known=known)).numpy()
    names = np.array(protein.topology.atom_names)
    gap = np.linalg.norm(made - protein.positions, axis=-1)
    inner = (names == "O") & (protein.topology.atom_residue < protein.topology.n_residues - 1)
    assert gap[:, np.isin(names, ("N", "CA", "C"))].max() < 1e-5
    assert np.median(gap[:, inner]) < 0.02
    assert gap[:, inner].max() < 0.12
    assert np.percentile(gap[:, names == "CB"], 90) < 0.03
    np.testing.assert_allclose(link_lengths(protein.topology, made), 0.133, atol=0.02)


@pytest.mark.trains
@pytest.mark.parametrize("name", ["com", "martini2", "martini3", "ca+sc"])
def test_side_chain_beads_come_out_where_they_were_given(protein, name):
    reading, positions = read(protein, name)

    def misfit(made: np.ndarray) -> float:
        """Root mean square distance of beads of residues with a torsion, nm."""
        topology, total = protein.topology, []
        for bead, (owner, shares) in enumerate(
            zip(reading.beads.residue, reading.beads.shares, strict=True)
        ):
            atoms = np.flatnonzero(topology.atom_residue == owner)
            if topology.sequence[owner] in ("GLY", "ALA"):
                continue
            centre = np.einsum("a,fax->fx", shares[: len(atoms)], made[:, atoms])
            total.append(centre - positions[:, reading.beads.particles[bead]])
        return float(np.sqrt(np.square(total).sum(-1).mean()))

    mode, drawn = answers(protein, name)
    without, drawn_without = answers(protein, name, given=False)
    assert misfit(mode) < 0.06
    assert misfit(mode) < 0.5 * misfit(without)
    assert misfit(drawn[0]) < 0.5 * misfit(drawn_without[0])
    right, before = (
        chi_right(protein.topology, made, protein.positions)["chi1"].mean()
        for made in (mode, without)
    )
    assert right > before + 0.05


@pytest.mark.trains
def test_frames_and_members_do_not_depend_on_what_is_computed_beside_them(protein):
    mode, drawn = answers(protein, "martini3", members=2)
    last = len(protein.positions) - 1
    alone, members = answers(protein, "martini3", members=1, frames=slice(last, last + 1))
    np.testing.assert_allclose(alone[0], mode[last], atol=2e-4)
    np.testing.assert_allclose(members[0, 0], drawn[0, last], atol=2e-4)


def test_residues_without_beads_are_drawn_as_ever(protein):
    """Beads that are not numbers change nothing, bit for bit."""
    reading, positions = read(protein, "ca+sc")
    coarse = torch.from_numpy(to_calpha(reading, positions))
    held = given_of(reading, positions)
    nothing = replace(held, beads=torch.full_like(held.beads, torch.nan))
    stage, system = protein.stage, protein.system
    np.testing.assert_array_equal(stage.mode(coarse, system, nothing), stage.mode(coarse, system))


def test_the_chain_hands_it_on_about_the_centre_of_each_frame(protein):
    reading, positions = read(protein, "backbone")
    positions = positions + np.float32([30.0, -20.0, 50.0])
    coarse, held = to_calpha(reading, positions), given_of(reading, positions)
    ladder = build_ladder(protein.topology, ["fg", "ca"])
    chain = Chain([protein.stage], ladder, torch.device("cpu"))
    (drawn,) = chain.run_members(coarse, [0, 1], [0], 0, held)
    backbone = np.isin(protein.topology.atom_names, ("N", "CA", "C", "O"))
    wanted = held.known[:, :, :4].reshape(2, -1, 3).numpy()
    assert np.abs(drawn["fg"][:, backbone] - wanted).max() < 1e-4
    again = Descent(coarse, [0, 1], [0], 0, given=held).again(1)
    assert np.abs(chain.run(again)[0]["fg"][:, backbone] - wanted).max() < 1e-4
