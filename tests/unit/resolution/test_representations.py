"""Inputs of every representation, coarse-grained from a real protein, are told apart and read right."""

from dataclasses import replace

import numpy as np
import pytest
from lysozyme import load_lysozyme

from hpcbackmap.protein.residues import ELEMENT_MASS, RESIDUES
from hpcbackmap.resolution.representations.bead_tables import MARTINI2, MARTINI3
from hpcbackmap.resolution.representations.coarsen import coarse_grained
from hpcbackmap.resolution.representations.detect import detect, read_as
from hpcbackmap.resolution.representations.registry import REPRESENTATIONS
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.particles import ChainRow, Particles, ResidueRow

BOND_NOISE = 0.018 / 2**0.5
"""nm; displacement along each axis that makes bonds fluctuate by 0.018."""


SHORT = {("ca", 3): 0.9, ("ca", 4): 0.9, ("com", 3): 0.6, ("com", 4): 0.7}
"""Least share of peptides of so many residues that are told right without asking."""


@pytest.fixture(scope="module")
def protein(data_dir):
    found = load_lysozyme(data_dir)
    assert set(found.topology.sequence) == set(RESIDUES)
    return found


def particles(protein, name: str, noise: float = 0.0, **changed) -> Particles:
    names, residue, positions = coarse_grained(name, protein.topology, protein.positions[:1])
    positions = positions + np.random.default_rng(0).normal(0, noise, positions.shape)
    fields = {
        "source": "beads.pdb",
        "names": names,
        "residue": residue,
        "residues": [
            ResidueRow(kind, number, "", 0)
            for kind, number in zip(
                protein.topology.sequence, protein.topology.residue_numbers, strict=True
            )
        ],
        "chains": [ChainRow("A", "")],
        "elements": [""] * len(names),
        "steps": np.full(protein.topology.n_residues, np.nan),
        "positions": positions[0].astype(np.float32),
    }
    return Particles(**fields | changed)


@pytest.mark.parametrize("noise", [0.0, BOND_NOISE])
@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_every_representation_is_told_by_itself(protein, name, noise):
    reading = detect(particles(protein, name, noise))
    assert reading.representation == name
    assert reading.topology.sequence == protein.topology.sequence
    assert sum(reading.topology.bonded) == protein.topology.n_residues - 1
    assert reading.left_out == {}
    assert f"read as {name}" in reading.words[0]


@pytest.mark.parametrize("name", ["ca", "com"])
def test_beads_that_jitter_by_an_angstrom_are_still_told_apart(protein, name):
    assert detect(particles(protein, name, 0.1 / 2**0.5)).representation == name


@pytest.mark.parametrize("table", [MARTINI2, MARTINI3])
def test_martini_beads_share_out_every_side_chain_atom_once(table):
    for name, beads in table.items():
        atoms = RESIDUES[name].atoms
        whole = np.array([ELEMENT_MASS[atom[0]] for atom in atoms[4:]])
        if table is MARTINI2 and name == "ALA":
            continue
        found = np.sum(beads, axis=0)[4 : len(atoms)] if beads else np.zeros(0)
        np.testing.assert_allclose(found, whole, rtol=1e-3)


@pytest.mark.parametrize("name", ["com", "martini2", "martini3", "ca+sc", "ca+com", "sc"])
def test_side_beads_are_the_centres_of_their_atoms(protein, name):
    """What the reading says of a bead's atoms gives back where it lies."""
    found = particles(protein, name)
    reading = detect(found)
    topology = protein.topology
    beads = reading.restraints(found.positions[None])[0]
    for bead, residue, shares in zip(
        beads, reading.beads.residue, reading.beads.shares, strict=True
    ):
        kind = topology.sequence[residue]
        atoms = [topology.atom_index[residue, atom] for atom in RESIDUES[kind].atoms]
        centre = shares[: len(atoms)] @ protein.positions[0, atoms]
        np.testing.assert_allclose(centre, bead, atol=1e-4)


def test_a_model_with_centres_of_mass_and_calpha_atoms_is_taken_apart(protein):
    """Residues 40 to 80 as a linker of C-alpha atoms between domains of centres of mass."""
    mixed = particles(protein, "com").positions.copy()
    mixed[40:80] = particles(protein, "ca").positions[40:80]
    reading = detect(particles(protein, "com", positions=mixed))
    assert reading.representation == "com"
    calpha = reading.sites["calpha"]
    assert calpha[43:77].all()
    assert not calpha[:37].any()
    assert not calpha[83:].any()
    assert reading.beads.residue.tolist() == np.flatnonzero(~calpha).tolist()
    assert (
        f"{calpha.sum()} of {len(calpha)} residues are read as C-alpha atoms" in reading.words[-1]
    )


def test_a_short_linker_of_calpha_atoms_is_said(protein):
    """Of twenty residues in 158 all bonds together hardly speak, those of the linker do."""
    mixed = particles(protein, "com").positions.copy()
    mixed[60:80] = particles(protein, "ca").positions[60:80]
    reading = detect(particles(protein, "com", positions=mixed))
    assert reading.representation == "com"
    assert reading.sites["calpha"][63:77].all()
    assert "residues are read as C-alpha atoms, by their distances" in reading.words[-1]


def test_what_fits_two_readings_is_asked_for_with_both(protein):
    """Neighbours 0.45 ± 0.04 nm apart are neither C-alpha atoms nor centres of mass for sure."""
    steps = np.random.default_rng(3).normal(0.0, 1.0, (protein.topology.n_residues, 3))
    steps *= np.random.default_rng(4).normal(0.45, 0.04, (len(steps), 1)) / np.linalg.norm(
        steps, axis=-1, keepdims=True
    )
    unclear = particles(protein, "ca", positions=steps.cumsum(0).astype(np.float32))
    with pytest.raises(ConfigError) as error:
        detect(unclear)
    for word in ("C-alpha", "centres of mass", "--representation ca", "--representation com"):
        assert word in str(error.value)
    assert read_as("ca", unclear).representation == "ca"


@pytest.mark.parametrize("length", [3, 4])
@pytest.mark.parametrize("name", ["ca", "com"])
def test_short_chains_named_ca_are_told_by_distance_too(protein, name, length):
    """Of short peptides few are taken for another kind; what could be several is asked for."""
    whole, told, wrong = particles(protein, name), 0, 0
    for start in range(0, 150, length):
        rows = list(range(start, start + length))
        try:
            found = detect(
                particles(
                    protein, name, names=["CA"] * length, residue=np.arange(length),
                    residues=[whole.residues[row] for row in rows], elements=[""] * length,
                    positions=whole.positions[rows], steps=np.full(length, np.nan),
                )
            )  # fmt: skip
        except ConfigError:
            continue
        told += found.representation == name
        wrong += found.representation != name
    count = len(range(0, 150, length))
    assert told / count > SHORT[name, length]
    assert wrong / count < 0.1


def test_beads_far_from_any_reading_are_refused(protein):
    """Centres of mass of residues that are all called glycine."""
    rows = [ResidueRow("GLY", number + 1, "", 0) for number in range(protein.topology.n_residues)]
    with pytest.raises(ConfigError, match=r"neither C-alpha atoms .* are names and order"):
        detect(particles(protein, "com", residues=rows))


def test_backbone_beads_named_by_their_type_are_those_of_martini(protein):
    beads = particles(protein, "martini2")
    named = replace(beads, names=["BN0" if name == "BB" else name for name in beads.names])
    assert detect(named).representation == "martini2"


def test_virtual_sites_of_a_go_model_are_named_and_left_out(protein):
    plain = particles(protein, "martini3")
    n = protein.topology.n_residues
    sites = Particles(
        source="go.pdb",
        names=plain.names + ["CA"] * n,
        residue=np.concatenate([plain.residue, np.arange(n) + n]),
        residues=plain.residues + plain.residues,
        chains=plain.chains,
        elements=[""] * (len(plain.names) + n),
        steps=np.full(2 * n, np.nan),
        positions=np.concatenate([plain.positions, particles(protein, "ca").positions]),
    )
    reading = detect(sites)
    assert reading.representation == "martini3"
    assert reading.topology.n_residues == n
    assert reading.left_out == {"virtual site CA of a Gō model": n}


def test_all_atoms_are_read_as_calpha_and_the_other_way_is_offered(protein):
    index = protein.topology.atom_residue
    atoms = particles(
        protein,
        "ca",
        names=list(protein.topology.atom_names),
        residue=index,
        elements=list(protein.topology.elements),
        positions=protein.positions[0],
    )
    reading = detect(atoms)
    assert reading.representation == "ca"
    assert "--representation backbone" in reading.words[0]
    assert reading.sites["ca"].tolist() == protein.topology.ca_index.tolist()
    kept = read_as("backbone", atoms)
    known = kept.known(protein.positions[:1])
    assert np.isfinite(known[0, :, :4]).all()
    np.testing.assert_array_equal(known[0, :, 1], protein.positions[0, protein.topology.ca_index])


@pytest.mark.parametrize("letters", [False, True])
def test_beads_named_by_residue(protein, letters):
    """HPS and its like name the bead, and sometimes the residue, after the amino acid."""
    sequence = protein.topology.sequence
    names = [RESIDUES[kind].letter if letters else kind for kind in sequence]
    rows = [ResidueRow(name, i + 1, "", 0) for i, name in enumerate(names)]
    reading = detect(particles(protein, "com", names=names, residues=rows))
    assert reading.representation == "com"
    assert reading.topology.sequence == sequence


def test_backbone_beads_of_another_name_are_told_by_distance(protein):
    plain = particles(protein, "bb")
    reading = detect(particles(protein, "bb", names=["B"] * len(plain.names)))
    assert reading.representation == "bb"
    assert reading.sites["bb"].tolist() == list(range(len(plain.names)))
    with pytest.raises(ConfigError, match=r"--representation bb"):
        detect(particles(protein, "bb", names=["CA"] * len(plain.names)))


@pytest.mark.parametrize("name", ["ca", "com"])
def test_beads_named_as_backbone_beads_that_are_none_are_told_by_distance(protein, name):
    plain = particles(protein, name, 0.02)
    reading = detect(particles(protein, name, 0.02, names=["BB"] * len(plain.names)))
    assert reading.representation == name
    assert detect(particles(protein, "bb", 0.1 / 3**0.5)).representation == "bb"


@pytest.mark.parametrize("name", ["ca+cb", "ca+sc"])
def test_beads_named_cb_are_atoms_or_centres_by_large_side_chains(protein, name):
    plain = particles(protein, name)
    names = ["CB" if each == "SC" else each for each in plain.names]
    assert detect(particles(protein, name, 0.06 / 3**0.5, names=names)).representation == name


def test_c_beta_atoms_alone_are_no_centres_of_side_chains(protein):
    plain = particles(protein, "sc")
    beads = particles(protein, "sc", names=["CB"] * len(plain.names))
    with pytest.raises(ConfigError, match=r"named CB: C-beta .*--representation sc"):
        detect(beads)
    assert read_as("sc", beads).representation == "sc"


def test_a_file_of_nothing_but_w_is_water(protein):
    plain = particles(protein, "ca")
    rows = [row._replace(name="W") for row in plain.residues]
    with pytest.raises(InputError, match="no protein residues; the residue names are W"):
        detect(particles(protein, "ca", residues=rows, names=["W"] * len(rows)))


@pytest.mark.parametrize("name", ["ca", "com"])
def test_numbers_that_run_backwards_leave_chains_whole(protein, name):
    plain = particles(protein, name)
    rows = [row._replace(number=200 - row.number) for row in plain.residues]
    reading = detect(particles(protein, name, residues=rows))
    assert reading.representation == name
    assert sum(reading.topology.bonded) == len(rows) - 1


def test_one_bad_frame_breaks_no_chain(protein):
    plain = particles(protein, "ca")
    torn = plain.positions.copy()
    torn[70:] += 5.0
    frames = np.stack([torn, plain.positions, plain.positions])
    reading = detect(particles(protein, "ca", positions=torn), frames)
    assert sum(reading.topology.bonded) == protein.topology.n_residues - 1


def test_modified_residues_become_their_parents_and_others_are_counted(protein):
    plain = particles(protein, "ca")
    rows = list(plain.residues)
    place = protein.topology.sequence.index("SER")
    rows[place] = rows[place]._replace(name="SEP")
    rows += [ResidueRow("DA", 1, "", 1), ResidueRow("DA", 2, "", 1)]
    other = particles(
        protein,
        "ca",
        names=[*plain.names, "P", "P"],
        elements=[""] * (len(rows)),
        residue=np.arange(len(rows)),
        residues=rows,
        chains=[ChainRow("A", ""), ChainRow("B", "")],
        steps=np.full(len(rows), np.nan),
        positions=np.concatenate([plain.positions, np.ones((2, 3), np.float32)]),
    )
    reading = detect(other)
    assert reading.topology.sequence == protein.topology.sequence
    assert any("SEP built as SER" in word for word in reading.words)
    assert reading.left_out == {"DNA DA": 2}


def test_a_residue_that_lacks_its_site_is_refused_by_name(protein):
    plain = particles(protein, "martini3")
    place = plain.names.index("BB", 50)
    names = [*plain.names]
    names[place] = "SC9"
    label = plain.label(int(plain.residue[place]))
    with pytest.raises(InputError, match=f"{label}.*BB"):
        detect(particles(protein, "martini3", names=names))
    with pytest.raises(ConfigError, match="martini3"):
        read_as("martini4", plain)


def test_backbones_of_sirah_and_primo_are_read_by_their_calpha(protein):
    """GN, GC and GO of SIRAH are N, CA and O; CO of PRIMO is no atom."""
    kept = [
        number for number, name in enumerate(particles(protein, "backbone").names) if name != "CB"
    ]
    given = particles(protein, "backbone").subset(np.array(kept))
    letters = {name: template.letter for name, template in RESIDUES.items()}
    beads = {"N": "GN", "CA": "GC", "C": "BCG", "O": "GO"}
    sirah = replace(
        given,
        names=[beads[name] for name in given.names],
        residues=[row._replace(name="s" + letters[row.name]) for row in given.residues],
    )
    reading = detect(sirah)
    assert reading.representation == "ca"
    assert reading.topology.sequence == protein.topology.sequence
    assert "SIRAH" in reading.words[0]
    np.testing.assert_array_equal(
        sirah.positions[reading.sites["ca"]], given.positions[detect(given).sites["backbone"][:, 1]]
    )
    primo = replace(given, names=[{"C": "CO", "O": "SC1"}.get(name, name) for name in given.names])
    reading = detect(primo)
    assert reading.representation == "ca"
    assert "PRIMO" in reading.words[0]
