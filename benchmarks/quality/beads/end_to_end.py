"""From beads of many residues to heavy atoms, both shipped stages: chemistry and error for unseen families.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/beads/end_to_end.py [--residues 4 10] [--limit N]

Prints a Markdown record: 98 chains of the test split of static_more, beads that are means of C-alpha atoms. One
answer, three members of the prior, and one answer that is told the secondary structure (DSSP of the truth);
beside them the atoms that the second stage makes from the true C-alpha trace, the trivial row (the closed
spline through the beads, then the second stage), and the truth.
"""

import argparse
import os
import sys
from pathlib import Path

import mdtraj
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from header import header
from heavy_atoms import UNSEEN, Ensemble, measures, read_unseen

from hpcbackmap.evaluation.bootstrap import Totals, summarise
from hpcbackmap.metrics.judge import METRICS, judge, judge_alone
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.trace.secondary_structure import SecondaryStructure
from hpcbackmap.stages.trace.spline import spline_weights

MEMBERS = 3
SHOWN = (
    "rmsd_angstrom", "rmsd_aligned_angstrom", "lddt", "bond_graph_ged", "peptide_bonds_off_percent",
    "cis_trans_wrong_percent", "d_residues_percent", "clashes_severe_per_100_residues",
    "clashes_per_100_residues", "clashscore", "pierced_rings_per_structure", "ramachandran_favoured_percent",
    "ramachandran_outliers_percent", "rotamer_outliers_percent", "helix_recovered_percent",
    "chi1_right_percent", "spread_ratio",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--residues", type=int, nargs="*", default=[4, 10])
    parser.add_argument("--limit", type=int, help="Only so many chains, evenly spaced.")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    keep_freed_memory()
    torch.set_num_threads(1)
    chains = read_unseen(Path(arguments.data), *UNSEEN["unseen"])
    chains = [chain for chain in chains if chain.topology.n_residues >= 3 * max(arguments.residues)]
    if arguments.limit:
        chosen = np.linspace(0, len(chains) - 1, min(arguments.limit, len(chains))).astype(int)
        chains = [chains[i] for i in chosen]
    print("\n".join(header("From beads of many residues to heavy atoms")))
    for size in arguments.residues:
        print("\n".join(table(size, chains)), flush=True)


def table(size: int, chains: list[Ensemble]) -> list[str]:
    rows: dict[str, Totals] = {}
    for number, chain in enumerate(chains):
        truth = chain.positions
        ladder = build_ladder(chain.topology, ["fg", "ca", f"ucg:/{size}"])
        for name, made in answers(ladder, truth, number).items():
            found = judge(chain.topology, truth, made)
            rows.setdefault(name, Totals(METRICS)).add(found, chain.name, np.array([number]))
        own = judge_alone(chain.topology, truth)
        rows.setdefault("truth", Totals(METRICS)).add(own, chain.name, np.array([number]))
        if number % 20 == 19:
            print(f"{size} residues a bead: {number + 1} of {len(chains)} chains", file=sys.stderr)
    found = {name: summarise(totals, len(chains), 500, 0) for name, totals in rows.items()}
    title = f"{size} residues per bead: {len(chains)} chains, {MEMBERS} members"
    return [*measures(title, found, SHOWN), ""]


@torch.no_grad()
def answers(ladder: Ladder, truth: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """Heavy atoms [1, M, A, 3] of each way."""
    name = ladder.resolutions[-1]
    trace = load_artifact(shipped_artifact("beads-ca")).at_rung(f"{name}-ca")
    heavy = load_artifact(shipped_artifact())
    first, second = collate([trace.describe(ladder)]), collate([heavy.describe(ladder)])
    beads = torch.from_numpy(ladder.coarsen(truth)[name].astype(np.float32))
    calpha = torch.from_numpy(truth[:, ladder.topology.ca_index].astype(np.float32))
    index, weight = spline_weights(ladder.mappings[1], np.array(ladder.topology.chain_index))
    spline = torch.from_numpy((weight[..., None] * beads.numpy()[0][index]).sum(1)[None])
    trans = torch.zeros(len(first.bond_index), dtype=torch.bool)
    straight = close_calpha(spline, first, trans)
    drawn = []
    for member in range(MEMBERS):
        made = trace.samples(beads, first, [noise(trace, number, member, beads)])[0]
        drawn += heavy.samples(made, second, [noise(heavy, number, member, made)])
    true = [
        heavy.samples(calpha, second, [noise(heavy, number, m, calpha)])[0] for m in range(MEMBERS)
    ]
    plain = trace.mode(beads, first)
    trace.structure = SecondaryStructure(dssp(ladder, truth))
    told = trace.mode(beads, collate([trace.describe(ladder)]))
    found = {
        "one answer": [heavy.mode(plain, second)],
        "secondary structure told": [heavy.mode(told, second)],
        "members": drawn,
        "closed spline": [heavy.mode(straight, second)],
        "true Cα, one answer": [heavy.mode(calpha, second)],
        "true Cα, members": true,
    }
    return {key: torch.stack(values, 1).numpy() for key, values in found.items()}


def dssp(ladder: Ladder, truth: np.ndarray) -> str:
    """A letter for each residue of the first frame, ? where DSSP has none."""
    frame = mdtraj.Trajectory(truth[:1], ladder.topology.to_mdtraj())
    letters = mdtraj.compute_dssp(frame, simplified=True)[0]
    return "".join(letter if letter in ("H", "E", "C") else "?" for letter in letters)


def noise(stage: Stage, number: int, member: int, coarse: torch.Tensor) -> torch.Tensor:
    drawn = frame_noise(0, stage.name, [number], member, coarse.shape[1], stage.noise_width)
    return torch.from_numpy(drawn)


if __name__ == "__main__":
    main()
