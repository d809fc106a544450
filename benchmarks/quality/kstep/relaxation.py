"""Energy of generated structures after a short restrained minimisation (OpenMM, amber14, vacuum).

Hydrogens come from one frame, where OpenMM placed them, by the local frames of the heavy atoms that carry
them: every row of a table is protonated alike. Heavy atoms are held by 1000 kJ/mol/nm² where they were
generated; the energies are without that restraint. What cannot be repaired in `ITERATIONS` stays high.
"""

from dataclasses import replace

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["ITERATIONS", "Relaxation"]

ITERATIONS = 100
RESTRAINT = 1000.0
CUTOFF = 1.0
"""nm; nonbonded forces without solvent end here."""


class Relaxation:
    """One protein, one force field, one context for all of its structures.

    topology: of the structures. reference: heavy atoms of one sound frame [A, 3], nm.
    Raises ImportError without OpenMM (``pip install hpcbackmap[examples]``).
    """

    def __init__(self, topology: Topology, reference: np.ndarray):
        import openmm
        from openmm import app, unit

        self._topology, whole = topology, with_terminal_oxygens(topology)
        heavy = add_terminal_oxygens(topology, reference[None].astype(np.float64))[0]
        field = app.ForceField("amber14-all.xml")
        model = app.Modeller(whole.to_mdtraj().to_openmm(), heavy * unit.nanometer)
        platform = openmm.Platform.getPlatformByName("CPU")
        model.addHydrogens(field, platform=platform)
        positions = np.array(model.positions.value_in_unit(unit.nanometer))
        atoms = list(model.topology.atoms())
        self._heavy = np.array([a.index for a in atoms if a.element.symbol != "H"])
        self._hydrogens = _Hydrogens(model.topology, positions)
        system = field.createSystem(
            model.topology,
            nonbondedMethod=app.CutoffNonPeriodic,
            nonbondedCutoff=CUTOFF * unit.nanometer,
        )
        self._hold = openmm.CustomExternalForce(f"{RESTRAINT}/2*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
        for name in ("x0", "y0", "z0"):
            self._hold.addPerParticleParameter(name)
        for atom in self._heavy:
            self._hold.addParticle(int(atom), positions[atom])
        self._hold.setForceGroup(1)
        system.addForce(self._hold)
        integrator = openmm.VerletIntegrator(0.001)
        self._context = openmm.Context(system, integrator, platform, {"Threads": "1"})
        self._minimize = openmm.LocalEnergyMinimizer.minimize

    def energies(self, structures: np.ndarray) -> np.ndarray:
        """kJ/mol after minimisation, [F]; heavy atoms [F, A, 3], nm. NaN where forces are not finite."""
        from openmm import OpenMMException, unit

        found = np.full(len(structures), np.nan)
        with np.errstate(invalid="ignore"):
            placed = [self._protonated(heavy[None]) for heavy in structures.astype(np.float64)]
        for k, whole in enumerate(placed):
            for i, atom in enumerate(self._heavy):
                self._hold.setParticleParameters(i, int(atom), whole[atom])
            self._hold.updateParametersInContext(self._context)
            try:
                self._context.setPositions(whole)
                self._minimize(self._context, 10.0, ITERATIONS)
                state = self._context.getState(getEnergy=True, groups={0})
            except OpenMMException:
                continue
            found[k] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        return found

    def _protonated(self, heavy: np.ndarray) -> np.ndarray:
        """All atoms [atoms, 3] of one structure [1, A, 3]; NaN where heavy atoms coincide."""
        whole = np.zeros((len(self._heavy) + self._hydrogens.count, 3))
        whole[self._heavy] = add_terminal_oxygens(self._topology, heavy)[0]
        self._hydrogens.place(whole)
        return whole


def with_terminal_oxygens(topology: Topology) -> Topology:
    """The topology with OXT at the end of every chain, which the force field asks for."""
    chains = np.array(topology.chain_index)
    last = np.append(chains[1:] != chains[:-1], True)
    return replace(topology, has_oxt=tuple(bool(x) for x in np.array(topology.has_oxt) | last))


def add_terminal_oxygens(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Heavy atoms [F, A, 3] with what `with_terminal_oxygens` adds: OXT is O mirrored on the line CA-C."""
    whole = with_terminal_oxygens(topology)
    index = topology.atom_index
    filled = np.empty((len(positions), whole.n_atoms, 3))
    for (residue, name), to in whole.atom_index.items():
        if (residue, name) in index:
            filled[:, to] = positions[:, index[residue, name]]
            continue
        ca, c, o = (positions[:, index[residue, part]] for part in ("CA", "C", "O"))
        axis = (c - ca) / np.linalg.norm(c - ca, axis=-1, keepdims=True)
        bond = o - c
        filled[:, to] = c + 2 * (bond * axis).sum(-1, keepdims=True) * axis - bond
    return filled


class _Hydrogens:
    """Where hydrogens are, seen from the heavy atom that carries each and two heavy atoms near it."""

    def __init__(self, topology, positions: np.ndarray):
        near: dict[int, list[int]] = {}
        light = {a.index for a in topology.atoms() if a.element.symbol == "H"}
        for a, b in topology.bonds():
            near.setdefault(a.index, []).append(b.index)
            near.setdefault(b.index, []).append(a.index)
        self._atoms = np.array(sorted(light))
        self.count = len(light)
        self._frames = np.array([_carriers(h, near, light) for h in self._atoms])
        carrier = positions[self._frames[:, 0]]
        axes = _axes(positions[self._frames])
        self._local = np.einsum("hij,hj->hi", axes, positions[self._atoms] - carrier)

    def place(self, positions: np.ndarray) -> None:
        """Fill in the hydrogens of positions [atoms, 3]."""
        corners = positions[self._frames]
        shift = np.einsum("hij,hi->hj", _axes(corners), self._local)
        positions[self._atoms] = corners[:, 0] + shift


def _carriers(hydrogen: int, near: dict[int, list[int]], light: set[int]) -> list[int]:
    """Its heavy atom, a heavy neighbour of that, and another heavy neighbour of either."""
    carrier = near[hydrogen][0]
    first = next(a for a in near[carrier] if a not in light)
    others = [a for a in near[carrier] + near[first] if a not in light | {carrier, first}]
    return [carrier, first, others[0]]


def _axes(corners: np.ndarray) -> np.ndarray:
    """Right-handed axes (rows) of three points each: [..., 3, 3] from [..., 3, 3]."""
    x = corners[..., 1, :] - corners[..., 0, :]
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    z = np.cross(x, corners[..., 2, :] - corners[..., 0, :])
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=-2)
