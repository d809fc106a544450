"""Restrained minimisation in a force field: AMBER ff14SB with OBC2 implicit solvent, by OpenMM.

Each structure by itself, in a context of its own, on OpenMM's CPU platform with one thread and deterministic
forces, so that its bits hang on nothing else. Nine tenths of an energy are the solvent; its forces are taken
as constant for a few steps of L-BFGS, then computed anew.

Shapes: S structures, A heavy atoms, H hydrogens, N = A + H; positions nm, energies kJ/mol.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcbackmap.finishing.naming import named_topology
from hpcbackmap.finishing.relax_check import fault
from hpcbackmap.protein.hydrogens import Hydrogens, hydrogens_of, residue_state
from hpcbackmap.protein.topology import Topology

if TYPE_CHECKING:
    import openmm

__all__ = ["PLATFORM", "Relaxed", "relax", "solvated_system"]

PLATFORM = "CPU"
FIELD = ("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
CUTOFF = 1.0
"""nm, of all that is not bonded."""
RESTRAINTS = (20_000.0, 100_000.0)
"""kJ/mol/nm^2, of each heavy atom to the place where it was made; the second where the first did harm."""
ROUNDS, STEPS = 2, 30
"""How often the solvent's forces are computed, and steps of L-BFGS between."""
TOLERANCE = 10.0
"""kJ/mol/nm, below which no more steps are taken."""
OFFSET = 0.009
"""nm, between the radii of Born and those that `CustomGBForce` of OpenMM's OBC2 stores."""
SOLVENT = 1
"""Force group of the solvent."""


class Relaxed(NamedTuple):
    """heavy [S, A, 3], hydrogens [S, H, 3]: float32; those of a structure that could not be relaxed as they
    were. energies: before and after [S, 2], NaN where that is not known. kept: why, by structure that was kept.
    """

    heavy: np.ndarray
    hydrogens: np.ndarray
    energies: np.ndarray
    kept: dict[int, str]


class _Field(NamedTuple):
    """Of one molecule. places: of heavy atoms in the order of the force field. bonds [B, 2], lengths [B]."""

    system: "openmm.System"
    restraint: "openmm.CustomExternalForce"
    push: "openmm.CustomExternalForce"
    places: list[int]
    bonds: np.ndarray
    lengths: np.ndarray


def relax(topology: Topology, heavy: np.ndarray, hydrogens: np.ndarray) -> Relaxed:
    """Structures [S, A, 3] with hydrogens [S, H, 3], each by itself; those without numbers are passed over."""
    atoms = hydrogens_of(topology)
    found = Relaxed(heavy.copy(), hydrogens.copy(), np.full((len(heavy), 2), np.nan), {})
    good = np.isfinite(heavy).all(axis=(1, 2)) & np.isfinite(hydrogens).all(axis=(1, 2))
    try:
        field = _field(topology)
    except ValueError as error:
        return found._replace(kept=dict.fromkeys(np.flatnonzero(good).tolist(), _in_a_line(error)))
    for number in np.flatnonzero(good).tolist():
        whole = atoms.joined(heavy[number], hydrogens[number]).astype(np.float64)
        centre = whole.mean(0)
        for restraint in RESTRAINTS:
            moved, found.energies[number] = _minimised(field, whole - centre, restraint)
            unsorted = np.empty_like(moved)
            unsorted[atoms.order] = moved + centre
            relaxed = unsorted.astype(np.float32)
            reason = _fault(
                topology, found.energies[number], moved, heavy[number], relaxed[: topology.n_atoms]
            )
            if reason is None:
                found.heavy[number] = relaxed[: topology.n_atoms]
                found.hydrogens[number] = relaxed[topology.n_atoms :]
                break
        else:
            found.kept[number] = str(reason)
    return found


def _in_a_line(error: ValueError) -> str:
    return f"the force field does not know it: {str(error).splitlines()[0]}"


def _fault(
    topology: Topology,
    energies: np.ndarray,
    moved: np.ndarray,
    heavy: np.ndarray,
    relaxed: np.ndarray,
) -> str | None:
    """Why a structure stays as it was; None if it need not. moved: [N, 3]."""
    if not (np.isfinite(energies[1]) and np.isfinite(moved).all()):
        return "its energy is not finite"
    if energies[0] <= energies[1]:
        return f"its energy did not fall: {energies[0]:.4g} to {energies[1]:.4g} kJ/mol"
    field = _field(topology)
    off = np.linalg.norm(np.diff(moved[field.bonds], axis=1)[:, 0], axis=-1) - field.lengths
    return fault(topology, heavy, relaxed, _names(topology), field.bonds, off)


def _minimised(field: _Field, start: np.ndarray, restraint: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions [N, 3] from ``start``, and the energies there and here; NaN where OpenMM gives up."""
    import openmm

    for number, place in enumerate(field.places):
        field.restraint.setParticleParameters(number, place, start[place])
    context = openmm.Context(
        field.system,
        _integrator(),
        openmm.Platform.getPlatformByName(PLATFORM),
        {"Threads": "1", "DeterministicForces": "true"},
    )
    energies = np.full(2, np.nan)
    try:
        context.setPositions(start)
        context.setParameter("restraint", restraint)
        for number in range(ROUNDS):
            solvent = context.getState(getForces=True, getEnergy=True, groups={SOLVENT})
            if number == 0:
                energies[0] = _energy(context, solvent)
            forces = solvent.getForces(asNumpy=True)._value
            for place, force in enumerate(forces):
                field.push.setParticleParameters(place, place, force)
            field.push.updateParametersInContext(context)
            openmm.LocalEnergyMinimizer.minimize(context, TOLERANCE, STEPS)
        solvent = context.getState(getEnergy=True, groups={SOLVENT})
        energies[1] = _energy(context, solvent)
        moved = context.getState(getPositions=True).getPositions(asNumpy=True)._value
    except (openmm.OpenMMException, ValueError):  # positions or forces without numbers
        return start, energies
    return np.array(moved), energies


def _integrator() -> "openmm.Integrator":
    """One that counts all forces but the solvent's, as the minimiser then does."""
    import openmm

    integrator = openmm.VerletIntegrator(0.001)
    integrator.setIntegrationForceGroups({0, 2})
    return integrator


def _energy(context: "openmm.Context", solvent: "openmm.State") -> float:
    """Of the force field in its solvent, without restraints."""
    dry = context.getState(getEnergy=True, groups={0}).getPotentialEnergy()._value
    found: float = dry + solvent.getPotentialEnergy()._value
    return found


@lru_cache(maxsize=4)
def _field(topology: Topology) -> _Field:
    import openmm

    atoms = hydrogens_of(topology)
    system = solvated_system(atoms, CUTOFF)
    squares = "(x-x0)^2+(y-y0)^2+(z-z0)^2"
    restraint = openmm.CustomExternalForce(f"0.5*restraint*({squares})")
    restraint.addGlobalParameter("restraint", RESTRAINTS[0])
    push = openmm.CustomExternalForce("-(x*x0+y*y0+z*z0)")
    places = np.flatnonzero(atoms.order < topology.n_atoms).tolist()
    for force, of in ((restraint, places), (push, range(system.getNumParticles()))):
        for name in ("x0", "y0", "z0"):
            force.addPerParticleParameter(name)
        for place in of:
            force.addParticle(place, [0.0, 0.0, 0.0])
        force.setForceGroup(2)
        system.addForce(force)
    rows = [_bond(force, i) for force in system.getForces()
            if isinstance(force, openmm.HarmonicBondForce) for i in range(force.getNumBonds())]  # fmt: skip
    bonds = np.array([row[:2] for row in rows], dtype=np.int64)
    return _Field(system, restraint, push, places, bonds, np.array([row[2] for row in rows]))


def _bond(force: Any, number: int) -> tuple[int, int, float]:
    first, second, length, _ = force.getBondParameters(number)
    return first, second, length._value


def solvated_system(atoms: Hydrogens, cutoff: float | None) -> "openmm.System":
    """The force field of a molecule in the order in which its atoms are written. cutoff: nm; None: none.

    Residues beside a gap of their chain are taken as inner ones that lack their neighbour.
    """
    import openmm
    from openmm import app, unit

    named = named_topology(atoms, "amber").to_openmm()
    residues = [*named.residues()]
    topology = atoms.topology
    states = {
        residues[i]: _template(topology, i)
        for i, name in enumerate(topology.sequence)
        if name == "CYS"
    }
    method = app.NoCutoff if cutoff is None else app.CutoffNonPeriodic
    system = app.ForceField(*FIELD).createSystem(
        named,
        nonbondedMethod=method,
        nonbondedCutoff=(cutoff or 1.0) * unit.nanometer,
        ignoreExternalBonds=True,
        residueTemplates=states,
        removeCMMotion=False,
    )
    slow = next(
        i for i, force in enumerate(system.getForces()) if isinstance(force, openmm.CustomGBForce)
    )
    fast = _fast_solvent(system.getForce(slow), cutoff)
    system.removeForce(slow)
    system.addForce(fast)
    return system


def _template(topology: Topology, residue: int) -> str:
    """Of a cysteine: without its hydrogen it may be bonded or charged."""
    state = residue_state(topology, residue)
    first = residue == 0 or topology.chain_index[residue] != topology.chain_index[residue - 1]
    end = "C" if topology.has_oxt[residue] else "N" if first else ""
    return end + ("CYS" if state == "CYS" else state)


def _fast_solvent(slow: "openmm.CustomGBForce", cutoff: float | None) -> "openmm.GBSAOBCForce":
    """The same model by OpenMM's own code for it, four times as fast on a CPU."""
    import openmm

    fast = openmm.GBSAOBCForce()
    names = [slow.getPerParticleParameterName(i) for i in range(slow.getNumPerParticleParameters())]
    for number in range(slow.getNumParticles()):
        of = dict(zip(names, slow.getParticleParameters(number), strict=True))
        fast.addParticle(of["charge"], of["or"] + OFFSET, of["sr"] / of["or"])
    if cutoff is not None:
        fast.setNonbondedMethod(openmm.GBSAOBCForce.CutoffNonPeriodic)
        fast.setCutoffDistance(cutoff)
    fast.setForceGroup(SOLVENT)
    return fast


@lru_cache(maxsize=4)
def _names(topology: Topology) -> list[tuple[int, str]]:
    """Residue and name of every atom, in the order in which they are written."""
    atoms = hydrogens_of(topology)
    heavy = [*zip(topology.atom_residue.tolist(), topology.atom_names, strict=True)]
    light = [*zip(atoms.residue.tolist(), atoms.names, strict=True)]
    return [[*heavy, *light][place] for place in atoms.order.tolist()]
