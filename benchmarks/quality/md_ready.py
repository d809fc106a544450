"""What share of backmapped structures loads in OpenMM, minimises and runs, and what fails.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/md_ready.py [--sets true adk ...] [--limit N] [--json FILE]

Each structure is made from C-alpha atoms by `hpcbackmap.backmap`, written as PDB and read by OpenMM. Three
ways to its hydrogens: *plain*, OpenMM's `Modeller.addHydrogens(forcefield)` on the heavy atoms; *own*,
`hydrogens=True`; *relaxed*, that with `relax=True`. Then 200 steps of minimisation and 2 ps at 300 K with
steps of 2 fs and constrained bonds of hydrogens, in ff14SB with a reaction field of water beyond 1 nm. It
*runs* if all is finite at the end; a *collapse* is a hydrogen within 1.3 Angstrom of a heavy atom that is not
its own, after the minimisation. Energies are those after it, less those of the crystal (with our hydrogens)
after the same, whole and by term. *noise X*: normal, its standard deviation along each axis as given; such
traces are read with `representation="ca"` and `on_bad_frame="repair"`. *beads N*: from means of N C-alpha
atoms, about, and the sequence; chains without a gap. Prints a Markdown record; progress to stderr.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import heavy_atoms
import mdtraj
import numpy as np
import openmm
from openmm import app, unit
from scipy.spatial import cKDTree

import hpcbackmap
from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.naming import named_topology
from hpcbackmap.finishing.protonation import protonation_states
from hpcbackmap.protein.hydrogens import hydrogens_of
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import HpcbackmapError

sys.path.insert(0, str(Path(__file__).parents[1]))
from header import PACKAGES, header

FIELD = app.ForceField("amber14/protein.ff14SB.xml")
NOISE = (0.13, 0.3, 0.5, 1.0)
"""Angstrom."""
BEADS = (4, 10)
"""Residues of a bead."""
SETS = (
    "true", "adk", "ped00151", *(f"noise {level}" for level in NOISE), *(f"beads {n}" for n in BEADS)
)  # fmt: skip
WAYS = ("plain", "own", "relaxed")
MINIMISED, RUN = 200, 1000
COLLAPSED = 0.13
"""nm from a hydrogen to a heavy atom that is not its own."""
HOT = 1000.0
"""K: a run that is hotter at its end has blown up."""
ENSEMBLE_FRAMES = 6
TERMS = ("bonds and angles", "torsions", "Lennard-Jones", "charges")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument(
        "--limit", type=int, help="Structures of each set, evenly spaced; default: all."
    )
    parser.add_argument("--most", type=int, default=10_000, help="Residues of a chain at most.")
    parser.add_argument("--json", type=Path, help="Write a row for every structure here.")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    rows: list[dict] = []
    for name in arguments.sets:
        for crystal in structures(Path(arguments.data), name, arguments.limit, arguments.most):
            for row in judged(crystal, name, arguments.ways):
                rows.append(row)
                print(*row.values(), sep="\t", file=sys.stderr, flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(*header("Ready for simulation", (*PACKAGES, "openmm")), sep="\n")
    print(table(rows))


def structures(data: Path, name: str, limit: int | None, most: int) -> list[heavy_atoms.Ensemble]:
    """Single structures of a set; test chains in order of the index."""
    if name in ("adk", "ped00151"):
        files, _ = heavy_atoms.ENSEMBLES[name]
        frames = min(limit or ENSEMBLE_FRAMES, ENSEMBLE_FRAMES)
        all_of_it = heavy_atoms.read([data / file for file in files], frames)
        return [
            all_of_it._replace(name=f"{name} {k}", positions=all_of_it.positions[[k]])
            for k in range(frames)
        ]
    chains = heavy_atoms.read_unseen(data, "static_more", "test")
    chains = [chain for chain in chains if chain.topology.n_residues <= most]
    if name.startswith("beads"):
        chains = [chain for chain in chains if np.all(chain.topology.bonded[1:])]
    chosen = np.unique(np.linspace(0, len(chains) - 1, limit or len(chains)).astype(int))
    return [chains[k] for k in chosen]


def judged(crystal: heavy_atoms.Ensemble, name: str, ways: list[str]) -> Iterator[dict]:
    """A row for mode and member by each way; numbers of residues, seconds of CPU time."""
    of_crystal = crystal_terms(crystal)
    coarse, options = given(crystal, name)
    for answer in ("mode", "member"):
        for way in ways:
            row: dict = {"set": name, "structure": crystal.name, "answer": answer, "way": way}
            row["residues"], begun = crystal.topology.n_residues, time.process_time()
            try:
                found = run(*prepared(coarse, options, answer, way))
            except (HpcbackmapError, openmm.OpenMMException, ValueError) as error:
                found = {"runs": False, "collapses": 0, "reason": str(error).splitlines()[0]}
            terms = found.pop("terms", None)
            found["energy"] = found["terms"] = None
            if terms is not None:
                less = {name: terms[name] - of_crystal[name] for name in TERMS}
                found["terms"] = {k: round(v / row["residues"], 2) for k, v in less.items()}
                found["energy"] = round(sum(less.values()) / row["residues"], 1)
            yield row | found | {"seconds": round(time.process_time() - begun, 1)}


def given(crystal: heavy_atoms.Ensemble, name: str) -> tuple[mdtraj.Trajectory, dict]:
    """What `hpcbackmap.backmap` gets of a structure: a trajectory of one frame, and options."""
    topology = crystal.topology
    positions = crystal.positions[:, topology.ca_index].astype(np.float64)
    if name.startswith("beads"):
        return beads(topology, positions, int(name.split()[1]))
    labels = [[topology.label(r).replace("CYS", "") for r in pair] for pair in topology.disulphides]
    disulphides = ",".join("-".join(pair) for pair in labels) or None
    if name.startswith("noise"):
        width = float(name.split()[1]) / 10
        seed = [ord(letter) for letter in crystal.name]
        positions += width * np.random.default_rng(seed).standard_normal(positions.shape)
    options = {"representation": "ca", "on_bad_frame": "repair", "disulphides": disulphides}
    return mdtraj.Trajectory(positions, topology.to_mdtraj("ca")), options


def beads(topology: Topology, calpha: np.ndarray, size: int) -> tuple[mdtraj.Trajectory, dict]:
    """Means of ``size`` C-alpha atoms, about, as a user has them: nameless particles, and a sequence."""
    count = max(3, round(topology.n_residues / size))
    first = np.unique(
        np.arange(topology.n_residues) * count // topology.n_residues, return_index=1
    )[1]
    lengths = np.diff(np.r_[first, topology.n_residues])
    means = np.add.reduceat(calpha, first, axis=1) / lengths[:, None]
    particles = mdtraj.Topology()
    chain = particles.add_chain()
    for number in range(count):
        residue = particles.add_residue("UNK", chain, resSeq=number + 1)
        particles.add_atom("B", mdtraj.element.virtual, residue)
    letters = "".join(RESIDUES[name].letter for name in topology.sequence)
    return mdtraj.Trajectory(means, particles), {"sequence": letters}


def prepared(
    coarse: mdtraj.Trajectory, options: dict, answer: str, way: str
) -> tuple[app.Topology, np.ndarray]:
    """All atoms of a structure, as OpenMM has them, and their positions."""
    with tempfile.TemporaryDirectory() as folder:
        (file,) = hpcbackmap.backmap(
            coarse,
            mode=answer == "mode",
            hydrogens=way != "plain",
            relax=way == "relaxed",
            **options,
            output=Path(folder) / "atoms.pdb",
        )
        read = app.PDBFile(str(file))
    if way != "plain":
        return read.topology, np.array(read.positions.value_in_unit(unit.nanometer))
    model = app.Modeller(read.topology, read.positions)
    model.addHydrogens(FIELD, platform=openmm.Platform.getPlatformByName("CPU"))
    return model.topology, np.array(model.positions.value_in_unit(unit.nanometer))


def run(topology: app.Topology, start: np.ndarray) -> dict:
    """Whether a structure runs, how many of its hydrogens collapse, its energy after minimisation."""
    minimised, terms = minimise(FIELD.createSystem(topology, **settings()), start)
    if not np.isfinite([*terms.values()]).all():
        reason = "no finite energy after minimisation"
        return {"runs": False, "collapses": 0, "reason": reason}
    collapses = collapsed(topology, minimised)
    system = FIELD.createSystem(topology, constraints=app.HBonds, **settings())
    step = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    step.setRandomNumberSeed(1)
    context = on_cpu(system, step)
    context.setPositions(minimised)
    reason = ""
    try:
        context.applyConstraints(1e-5)
        context.setVelocitiesToTemperature(300, 1)
        step.step(RUN)
        state = context.getState(getEnergy=True, getPositions=True)
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        freedom = 3 * system.getNumParticles() - system.getNumConstraints()
        kelvin = 2 * kinetic / (freedom * 0.0083145)
        there = np.isfinite(np.array(state.getPositions()._value)).all()
        if not (there and np.isfinite(kelvin)):
            reason = "positions without numbers after 2 ps"
        elif kelvin > HOT:
            reason = f"{kelvin:.0f} K after 2 ps"
    except openmm.OpenMMException as error:
        reason = str(error).splitlines()[0]
    found = {"runs": not reason, "collapses": len(collapses), "terms": terms}
    return found | {"reason": "; ".join(filter(None, [reason, *collapses]))}


def settings() -> dict:
    return {
        "nonbondedMethod": app.CutoffNonPeriodic,
        "nonbondedCutoff": 1.0 * unit.nanometer,
    }


def minimise(system: openmm.System, start: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Positions after it, and energies by `TERMS`, kJ/mol."""
    forces = {type(force).__name__: force for force in system.getForces()}
    for group, force in enumerate(forces.values()):
        force.setForceGroup(group)
    context = on_cpu(system, openmm.VerletIntegrator(0.001))
    context.setPositions(start)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0, MINIMISED)

    def energy(name: str) -> float:
        if name not in forces:
            return 0.0
        state = context.getState(getEnergy=True, groups={forces[name].getForceGroup()})
        return state.getPotentialEnergy()._value

    stiff = energy("HarmonicBondForce") + energy("HarmonicAngleForce")
    torsions, both = energy("PeriodicTorsionForce"), energy("NonbondedForce")
    pairs = forces["NonbondedForce"]
    for number in range(pairs.getNumParticles()):
        _, *uncharged = pairs.getParticleParameters(number)
        pairs.setParticleParameters(number, 0.0, *uncharged)
    for number in range(pairs.getNumExceptions()):
        first, second, _, *uncharged = pairs.getExceptionParameters(number)
        pairs.setExceptionParameters(number, first, second, 0.0, *uncharged)
    pairs.updateParametersInContext(context)
    contact = energy("NonbondedForce")
    found = (stiff, torsions, contact, both - contact)
    positions = np.array(context.getState(getPositions=True).getPositions()._value)
    return positions, dict(zip(TERMS, found, strict=True))


def on_cpu(system: openmm.System, integrator: openmm.Integrator) -> openmm.Context:
    platform = openmm.Platform.getPlatformByName("CPU")
    return openmm.Context(system, integrator, platform, {"Threads": "1"})


def collapsed(topology: app.Topology, positions: np.ndarray) -> list[str]:
    """Hydrogens that lie on a heavy atom which is not their own, in words."""
    atoms = [*topology.atoms()]
    parent = {}
    for first, second in topology.bonds():
        for one, other in ((first, second), (second, first)):
            if one.element.symbol == "H":
                parent[one.index] = other.index
    heavy = np.array([atom.index for atom in atoms if atom.element.symbol != "H"])
    tree, found = cKDTree(positions[heavy]), []
    for light, owner in parent.items():
        near = heavy[tree.query_ball_point(positions[light], COLLAPSED)]
        for other in near[near != owner].tolist():
            words = [
                f"{a.residue.name}{a.residue.id} {a.name}" for a in (atoms[light], atoms[other])
            ]
            found.append(" on ".join(words))
    return found


def crystal_terms(crystal: heavy_atoms.Ensemble) -> dict[str, float]:
    """Its energies with our hydrogens, after the same minimisation."""
    topology = crystal.topology
    states = protonation_states(topology, crystal.positions, 7.0)
    atoms = hydrogens_of(replace(topology, protonation=states))
    light = add_hydrogens(atoms.topology, crystal.positions)
    places = atoms.joined(crystal.positions[0], light[0]).astype(np.float64)
    named = named_topology(atoms, "amber").to_openmm()
    system = FIELD.createSystem(
        named, ignoreExternalBonds=not all(topology.has_oxt[-1:]), **settings()
    )
    return minimise(system, places)[1]


def table(rows: list[dict]) -> str:
    lines = [
        "| set | answer | hydrogens | structures | run (%) | with a collapse | energy − crystal's, median "
        "(kJ/mol/residue) | " + ", ".join(TERMS) + ", mean | CPU s each |",
        "|---" * 9 + "|",
    ]
    for key in dict.fromkeys((row["set"], row["answer"], row["way"]) for row in rows):
        mine = [row for row in rows if (row["set"], row["answer"], row["way"]) == key]
        energies = [row["energy"] for row in mine if row["energy"] is not None]
        share = 100 * sum(row["runs"] for row in mine) / len(mine)
        energy = f"{np.median(energies):+.1f}" if energies else "–"
        terms = np.array([[*row["terms"].values()] for row in mine if row["terms"] is not None])
        by_term = ", ".join(f"{value:+.1f}" for value in terms.mean(0)) if len(terms) else "–"
        seconds = np.mean([row["seconds"] for row in mine])
        cells = [*key, len(mine), f"{share:.0f}", sum(row["collapses"] > 0 for row in mine), energy]
        cells.append(by_term)
        lines.append("| " + " | ".join(map(str, [*cells, f"{seconds:.0f}"])) + " |")
    lines += ["", "What failed, or collapsed:", ""]
    bad = [row for row in rows if not row["runs"] or row["collapses"]]
    for row in bad:
        what = "" if row["runs"] else "does not run: "
        lines.append(
            f"* {row['set']}, {row['structure']}, {row['answer']}, {row['way']}: {what}{row['reason']}"
        )
    kinds = Counter(row["way"] for row in bad)
    lines += [] if bad else ["* nothing"]
    lines += [
        "",
        "By hydrogens: " + (", ".join(f"{k} {n}" for k, n in kinds.items()) or "none") + ".",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
