"""Figures show what they say: the drawn numbers against hand-made cases and mdtraj."""

import mdtraj
import numpy as np
import pytest
from judged_campaign import load_example

from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.report.figures import (
    bond_length_figure,
    ramachandran_figure,
    rotamer_figure,
    rotamer_map_figure,
)
from hpcbackmap.report.figures_along import frame_figure, residue_rmsd_figure, training_figure


@pytest.fixture(scope="module")
def example(example_dir):
    return load_example(example_dir, frames=6)


def map_of(figure, panel: int) -> np.ndarray:
    """Percent in each cell [y, x] of one panel."""
    return figure.axes[panel].collections[0].get_array().filled(0).reshape(72, 72)


def line_of(ax, label: str) -> np.ndarray:
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return np.asarray(line.get_ydata())


def test_ramachandran_cells_are_the_angles_of_mdtraj(example):
    topology, positions = example
    figure = ramachandran_figure([(topology, {"model": positions[1:2], "truth": positions[:1]})])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["Truth", "This model"]
    for panel, frame in ((0, 0), (1, 1)):
        one = mdtraj.Trajectory(positions[frame], topology.to_mdtraj())
        phi = np.rad2deg(mdtraj.compute_phi(one)[1][0, :-1])
        psi = np.rad2deg(mdtraj.compute_psi(one)[1][0, 1:])
        counts, _, _ = np.histogram2d(psi, phi, bins=72, range=((-180, 180), (-180, 180)))
        assert np.allclose(map_of(figure, panel), 100 * counts / len(phi))


def test_systems_are_pooled_residue_by_residue(example):
    topology, positions = example
    split = [(topology, {"truth": positions[:1]}), (topology, {"truth": positions[1:]})]
    joint = ramachandran_figure([(topology, {"truth": positions})])
    assert np.allclose(map_of(ramachandran_figure(split), 0), map_of(joint, 0))


def chi2_cell(example, letter: str, residue: int, swap: tuple[str, str] | None) -> int:
    """Row of the map, 5 degrees high, in which the first frame of one residue stands."""
    topology, positions = example
    alone = topology_from_sequence([letter])
    names = list(alone.atom_names)
    atoms = [topology.atom_index[residue, name] for name in names if name != "OXT"]
    for name, other in (swap, swap[::-1]) if swap else ():
        atoms[names.index(name)] = topology.atom_index[residue, other]
    single = positions[:1, [*atoms, topology.ca_index[0]]]
    (row,), _ = np.nonzero(map_of(rotamer_map_figure([(alone, {"truth": single})]), 0))
    return int(row)


@pytest.mark.parametrize(
    ("letter", "residue", "names", "alike"),
    [
        ("Y", 2, ("CD1", "CD2"), True),
        ("D", 8, ("OD1", "OD2"), True),
        ("L", 1, ("CD1", "CD2"), False),
    ],
)
def test_swapped_names_of_like_atoms_leave_the_rotamer(example, letter, residue, names, alike):
    """Groups are flat to some degrees only; the methyl groups of leucine are a third of a turn apart."""
    apart = abs(
        chi2_cell(example, letter, residue, None) - chi2_cell(example, letter, residue, names)
    )
    assert (min(apart, 36 - apart) <= 3) if alike else (20 <= min(apart, 72 - apart) <= 28)


def test_rotamer_panels_hold_chi1_and_chi2(example):
    topology, positions = example
    figure = rotamer_figure([(topology, {"truth": positions})])
    frames = mdtraj.Trajectory(positions, topology.to_mdtraj())
    expected = np.rad2deg(mdtraj.compute_chi1(frames)[1]).ravel()
    density, _ = np.histogram(expected, np.linspace(-180, 180, 73), density=True)
    assert np.allclose(figure.axes[0].patches[0].get_data().values, density, atol=1e-4)


def test_a_stretched_bond_is_counted_at_the_edge_of_its_panel(example):
    topology, positions = example
    far = positions.copy()
    far[:, topology.atom_index[19, "OXT"]] += 1.0
    figure = bond_length_figure([(topology, {"truth": positions, "model": far})])
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["C–C", "C–N", "C–O"]
    truth, model = (patch.get_data().values for patch in figure.axes[2].patches)
    assert truth[-1] == 0
    assert model[-1] > 0


def test_the_displaced_residue_stands_out(example):
    topology, positions = example
    moved = positions[:, None].copy()
    atoms = np.flatnonzero(topology.atom_residue == 7)
    moved[:, :, atoms] += np.array([0.3, 0, 0])
    figure = residue_rmsd_figure(topology, positions, {"model": moved})
    error = line_of(figure.axes[0], "This model")
    assert error.argmax() == 7
    assert 2 < error[7] <= 3
    assert np.delete(error, 7).max() < 0.8


def test_strips_show_rmsd_size_and_planted_clashes(example):
    topology, positions = example
    members = np.stack([positions, positions], axis=1)
    first, last = topology.atom_index[2, "CB"], topology.atom_index[18, "CB"]
    members[3, 1, first] = members[3, 1, last] + [0.05, 0, 0]
    frames = np.arange(10, 16)
    figure = frame_figure(topology, frames, positions, {"model": members})
    rmsd, size, clashes = figure.axes
    assert np.allclose(rmsd.lines[0].get_xdata(), frames)
    assert np.flatnonzero(line_of(rmsd, "This model") > 0.05).tolist() == [3]
    masses = topology.masses
    real = mdtraj.compute_rg(mdtraj.Trajectory(positions, topology.to_mdtraj()), masses=masses)
    assert np.allclose(line_of(size, "Truth"), 10 * real, rtol=2e-2)
    drawn = line_of(clashes, "This model") - line_of(clashes, "Truth")
    assert drawn[3] >= 100 / topology.n_residues / 2
    assert np.delete(drawn, 3).max() == 0


def test_training_and_validation_records_become_curves():
    records = [{"kind": "train", "step": k, "loss": 5.0 - k} for k in range(4)]
    records += [{"kind": "validation", "step": 3, "loss": 2.5, "kl": 7.0, "log_likelihood": -9.0}]
    figure = training_figure({"ca-fg": records})
    loss, nats = figure.axes
    assert line_of(loss, "training").tolist() == [5.0, 4.0, 3.0, 2.0]
    assert line_of(loss, "validation").tolist() == [2.5]
    assert line_of(nats, "KL").tolist() == [7.0]
    assert line_of(nats, "log likelihood").tolist() == [-9.0]


@pytest.mark.parametrize(("low", "high"), [(27, 95), (41, 47), (160, 1400), (-300, 2000)])
def test_axes_of_nats_have_several_ticks_however_narrow(low, high):
    records = [
        {"step": step, "kind": "validation", "kl": value, "loss": 1.0}
        for step, value in ((1, low), (2, high))
    ]
    axes = training_figure({"ca-fg": records}).axes[1]
    bottom, top = axes.get_ylim()
    assert sum(bottom <= tick <= top for tick in axes.get_yticks()) >= 3
