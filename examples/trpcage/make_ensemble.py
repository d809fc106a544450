"""Make the Trp-cage example ensemble from its sequence alone.

    python make_ensemble.py run --scratch work --rounds 8     # hours; a rerun goes on
    python make_ensemble.py assemble --scratch work --out .   # from the walkers finished so far
    python make_ensemble.py run --quick --scratch quick       # a minute: two tiny walkers

Many short independent walkers decorrelate better than one long run. A round holds one walker for
every (start kind, temperature) in `ROUND`, so that any number of whole rounds is balanced:

    extended    a chain with random phi/psi, minimised, equilibrated
    collapsed   such a chain, pulled together by a temporary bias, released, equilibrated
    folded      a chain annealed under temporary restraints that say what the literature says of
                the fold (helices, Trp6 cage, salt bridge), released, equilibrated; the folded
                walkers of a round share one annealing

Every bias is zero while frames are saved. Needs openmm, PeptideBuilder and mdtraj.
"""

import argparse
import csv
import io
import json
import random
import time
from pathlib import Path

import Bio.PDB
import mdtraj
import numpy as np
import openmm as mm
import PeptideBuilder
from checks import flaws
from openmm import app, unit

SEQUENCE = "NLYIQWLKDGGPSSGRPPPS"
TEMPERATURES = (300, 350, 400, 450, 500)
ROUND = [("folded", 300), ("folded", 350)] + [
    (kind, kelvin) for kelvin in TEMPERATURES for kind in ("folded", "collapsed", "extended")
]
TIMESTEP_PS = 0.004
PS = round(1 / TIMESTEP_PS)
FRICTION_PER_PS = 1.0
# All but the number of frames in ps.
FULL = {"frames": 10, "spacing": 4, "equilibrate": 8, "collapse": 16, "anneal": 80}
QUICK = {"frames": 3, "spacing": 1, "equilibrate": 1, "collapse": 2, "anneal": 2}

# Backbone regions (phi, psi) in degrees: polyproline II, beta, alpha; glycine has two more.
REGIONS = [(-70, 145), (-120, 130), (-65, -40)]
GLYCINE_REGIONS = REGIONS + [(65, 35), (80, -170)]
PROLINE_REGIONS = REGIONS[::2]

# The fold. Residues count from 1; torsions (phi, psi) in degrees, distances in nm (upper bounds).
FOLD_TORSIONS = {
    **dict.fromkeys(range(2, 10), (-62, -42)),  # alpha helix
    **dict.fromkeys(range(12, 15), (-65, -25)),  # 3-10 helix
    **dict.fromkeys(range(17, 20), (-70, 145)),  # polyproline II
}
FOLD_DISTANCES = [
    ((6, "NE1"), (16, "O"), 0.31),  # indole hydrogen bond
    ((9, "CG"), (16, "CZ"), 0.45),  # salt bridge
    ((11, "N"), (6, "O"), 0.33),  # helix cap
    ((14, "N"), (11, "O"), 0.33),  # 3-10 helix
    ((11, "CA"), (6, "CD2"), 0.50),  # the cage around Trp6
    ((12, "CG"), (6, "CE3"), 0.50),
    ((18, "CA"), (6, "CD2"), 0.50),
    ((18, "CG"), (6, "CZ2"), 0.50),
    ((19, "CG"), (6, "CZ3"), 0.65),
    ((19, "CG"), (3, "CZ"), 0.55),
    ((7, "CG"), (12, "CG"), 0.65),
]


def build_chain(rng, torsions):
    """Heavy atoms with the given phi/psi, random ones elsewhere; a clashing chain is redrawn."""
    while True:
        pairs = []
        for i, letter in enumerate(SEQUENCE, start=1):
            regions = {"G": GLYCINE_REGIONS, "P": PROLINE_REGIONS}.get(letter, REGIONS)
            centre = torsions.get(i, regions[rng.integers(len(regions))])
            width = 3 if i in torsions else 8 if letter == "P" else 18
            pairs.append(rng.normal(centre, width))
        phi, psi = np.array(pairs).T
        chain = PeptideBuilder.make_structure(SEQUENCE, list(phi[1:]), list(psi[:-1]))
        PeptideBuilder.add_terminal_OXT(chain)
        atoms = [(atom.get_parent().id[1], atom.coord) for atom in chain.get_atoms()]
        residue, xyz = np.array([a[0] for a in atoms]), np.array([a[1] for a in atoms])
        apart = np.linalg.norm(xyz[:, None] - xyz[None], axis=-1)
        if apart[np.abs(residue[:, None] - residue[None]) > 1].min() > 1.6:
            break
    text = io.StringIO()
    writer = Bio.PDB.PDBIO()
    writer.set_structure(chain)
    writer.save(text)
    text.seek(0)
    return app.PDBFile(text)


def add_hydrogens(pdb, seed):
    random.seed(seed)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addHydrogens(app.ForceField("amber14/protein.ff14SB.xml"), pH=7.0, platform=cpu()[0])
    return modeller


def cpu():
    return mm.Platform.getPlatformByName("CPU"), {"Threads": "1"}


def make_system(topology):
    """ff14SB + OBC2, by the compiled OBC kernel: five times as fast as the custom force."""
    field = app.ForceField("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
    system = field.createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, hydrogenMass=3 * unit.amu
    )
    index = next(i for i, f in enumerate(system.getForces()) if isinstance(f, mm.CustomGBForce))
    slow, fast = system.getForce(index), mm.GBSAOBCForce()
    for i in range(slow.getNumParticles()):
        charge, offset_radius, scaled_radius = slow.getParticleParameters(i)
        fast.addParticle(charge, offset_radius + 0.009, scaled_radius / offset_radius)
    system.addForce(fast)
    system.removeForce(index)
    add_biases(system, topology)
    return system


def add_biases(system, topology):
    """Flat-bottom biases, scaled by global parameters that only preparation raises above 0."""
    atom = {(a.residue.index + 1, a.name): a.index for a in topology.atoms()}
    pull = mm.CustomBondForce("fold*0.5*500*max(0,r-r0)^2")
    pull.addGlobalParameter("fold", 0)
    pull.addPerBondParameter("r0")
    for a, b, r0 in FOLD_DISTANCES:
        pull.addBond(atom[a], atom[b], [r0])
    turn = mm.CustomTorsionForce(
        "fold*0.5*200*max(0,d-0.25)^2; d=min(e,6.2831853-e); e=abs(theta-t0)"
    )
    turn.addGlobalParameter("fold", 0)
    turn.addPerTorsionParameter("t0")
    for i, (phi, psi) in FOLD_TORSIONS.items():
        n, alpha, c = (atom[i, name] for name in ("N", "CA", "C"))
        turn.addTorsion(atom[i - 1, "C"], n, alpha, c, [np.radians(phi)])
        turn.addTorsion(n, alpha, c, atom[i + 1, "N"], [np.radians(psi)])
    gather = mm.CustomBondForce("collapse*0.5*30*max(0,r-reach)^2")
    gather.addGlobalParameter("collapse", 0)
    gather.addGlobalParameter("reach", 1.3)
    for i in range(1, len(SEQUENCE) + 1):
        for j in range(i + 4, len(SEQUENCE) + 1):
            gather.addBond(atom[i, "CA"], atom[j, "CA"])
    for force in (pull, turn, gather):
        system.addForce(force)


def simulation(topology, system, kelvin, seed, positions):
    integrator = mm.LangevinMiddleIntegrator(kelvin, FRICTION_PER_PS, TIMESTEP_PS)
    integrator.setRandomNumberSeed(seed)
    sim = app.Simulation(topology, system, integrator, *cpu())
    sim.context.setPositions(positions)
    return sim


def positions_of(sim):
    return sim.context.getState(positions=True).getPositions(asNumpy=True)._value


def heavy_part(topology, frames):
    """The heavy atoms of all-atom frames, as an mdtraj trajectory."""
    full = mdtraj.Trajectory(np.asarray(frames), mdtraj.Topology.from_openmm(topology))
    return full.atom_slice([a.index for a in full.topology.atoms if a.element.symbol != "H"])


def random_chain(model, rng, torsions, kelvin):
    """A simulation of a minimised chain; one that minimisation left with a flaw is redrawn."""
    topology, system = model
    while True:
        seed = int(rng.integers(1, 2**31))
        chain = add_hydrogens(build_chain(rng, torsions), seed)
        sim = simulation(topology, system, kelvin, seed, chain.positions)
        start_moving(sim, kelvin, seed)
        if not flaws(heavy_part(topology, [positions_of(sim)])):
            return sim


def start_moving(sim, kelvin, seed):
    sim.minimizeEnergy(maxIterations=300)
    sim.context.setVelocitiesToTemperature(kelvin, seed)


def anneal(model, rng, length_ps):
    """From a chain with the fold's torsions to the fold, 500 K to 300 K; then the bias fades."""
    schedule = [(500, 1)] * 4 + [(450, 1), (400, 1), (350, 1), (300, 1), (300, 0.3), (300, 0.1)]
    while True:
        sim = random_chain(model, rng, FOLD_TORSIONS, 500)
        sim.context.setParameter("fold", 1)
        start_moving(sim, 500, int(rng.integers(1, 2**31)))
        for kelvin, fold in schedule:
            sim.integrator.setTemperature(kelvin)
            sim.context.setParameter("fold", fold)
            sim.step(round(length_ps * PS / len(schedule)))
        if not flaws(heavy_part(model[0], [positions_of(sim)])):
            return positions_of(sim)


def prepare(model, kind, kelvin, rng, plan, scratch, round_index):
    """A simulation of one walker, equilibrated with every bias off."""
    if kind == "folded":
        seed = int(rng.integers(1, 2**31))
        sim = simulation(*model, kelvin, seed, folded_start(model, plan, scratch, round_index))
        start_moving(sim, kelvin, seed)
    else:
        sim = random_chain(model, rng, {}, kelvin)
    if kind == "collapsed":
        sim.context.setParameter("reach", rng.uniform(1.0, 1.4))
        sim.context.setParameter("collapse", 1)
        sim.integrator.setTemperature(max(kelvin, 400))
        sim.step(plan["collapse"] * PS)
        sim.context.setParameter("collapse", 0)
        sim.integrator.setTemperature(kelvin)
    sim.step(plan["equilibrate"] * PS)
    return sim


def folded_start(model, plan, scratch, round_index):
    path = scratch / f"fold_{round_index:03d}.npy"
    if not path.exists():
        save_whole(path, anneal(model, np.random.default_rng([7, round_index]), plan["anneal"]))
        print(f"annealed the folded start of round {round_index}", flush=True)
    return np.load(path)


def save_whole(path, array):
    partial = path.with_name("partial_" + path.name)
    np.save(partial, array)
    partial.rename(path)


def run_walker(model, number, kind, kelvin, plan, scratch):
    """Save the heavy atoms of a walker. A flipped walker is dropped, counted, and made anew."""
    for attempt in range(5):
        rng = np.random.default_rng([1, number, attempt])
        sim = prepare(model, kind, kelvin, rng, plan, scratch, number // len(ROUND))
        frames = []
        for _ in range(plan["frames"]):
            sim.step(plan["spacing"] * PS)
            frames.append(positions_of(sim))
            if flaws(heavy_part(model[0], frames[-1:])):
                break
        heavy = heavy_part(model[0], frames)
        wrong = flaws(heavy)
        if not wrong:
            break
        print(f"walker {number} attempt {attempt} dropped: {wrong}", flush=True)
        (scratch / f"dropped_{number:04d}_{attempt}.json").write_text(json.dumps(wrong))
    else:
        raise RuntimeError(f"walker {number} flipped five times")
    label = {"kind": kind, "kelvin": kelvin, "spacing": plan["spacing"]}
    (scratch / f"walker_{number:04d}.json").write_text(json.dumps(label))
    save_whole(scratch / f"walker_{number:04d}.npy", heavy.xyz)


def run(args):
    args.scratch.mkdir(parents=True, exist_ok=True)
    plan = QUICK if args.quick else FULL
    walkers = [("folded", 300), ("extended", 500)] if args.quick else ROUND * args.rounds
    start = time.time()
    topology = add_hydrogens(build_chain(np.random.default_rng(0), {}), 0).topology
    names_only = heavy_part(topology, np.zeros((1, topology.getNumAtoms(), 3)))
    names_only.save_pdb(args.scratch / "top.pdb")
    model = topology, make_system(topology)
    for number, (kind, kelvin) in enumerate(walkers):
        if (args.scratch / f"walker_{number:04d}.npy").exists():
            continue
        if args.minutes and time.time() - start > 60 * args.minutes:
            print("time is up; a rerun goes on from here")
            break
        run_walker(model, number, kind, kelvin, plan, args.scratch)
        minutes = (time.time() - start) / 60
        done = f"walker {number + 1}/{len(walkers)}"
        print(f"{done}  {kind} {kelvin} K  {minutes:.1f} min", flush=True)


def assemble(args):
    """Join the walkers in order, a multiple of 5: a fifth of the frames is whole walkers."""
    paths = sorted(args.scratch.glob("walker_*.npy"))
    paths = paths[: len(paths) // 5 * 5] or paths
    topology = mdtraj.load(args.scratch / "top.pdb").topology
    xyz, rows = [], []
    for walker, path in enumerate(paths):
        label = json.loads(path.with_suffix(".json").read_text())
        for step, frame in enumerate(np.load(path), start=1):
            time_ps = step * label["spacing"]
            rows.append((len(rows), walker, label["kind"], label["kelvin"], time_ps))
            xyz.append(frame - frame.mean(axis=0))
    ensemble = mdtraj.Trajectory(np.array(xyz), topology, time=np.arange(len(rows)))
    args.out.mkdir(parents=True, exist_ok=True)
    ensemble[0].save_pdb(args.out / "trpcage_top.pdb")
    ensemble.save_xtc(args.out / "trpcage.xtc")
    with open(args.out / "frames.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "walker", "start_kind", "temperature_K", "time_ps"])
        writer.writerows(rows)
    dropped = len(list(args.scratch.glob("dropped_*.json")))
    print(f"{len(paths)} walkers, {len(rows)} frames, {dropped} attempts dropped")
    print(f"flaws: {flaws(ensemble) or 'none'}")
    print(f"last fifth begins at frame {next(r[0] for r in rows if r[1] == len(paths) * 4 // 5)}")


def main():
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="run the walkers that are still missing")
    command.add_argument("--scratch", type=Path, required=True, help="one file per walker")
    command.add_argument("--rounds", type=int, default=8, help=f"of {len(ROUND)} walkers each")
    command.add_argument("--minutes", type=float, help="start no walker after this many minutes")
    command.add_argument("--quick", action="store_true", help="two tiny walkers")
    command.set_defaults(do=run)
    command = commands.add_parser("assemble", help="join the finished walkers")
    command.add_argument("--scratch", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(do=assemble)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
