r"""Beads to C-alpha with one known structure of the protein: what it is worth, and where it is wrong.

    export HPCBACKMAP_DATA=...
    python benchmarks/quality/reference.py OUT.md [--members 10] [--every 8]

Adenylate kinase on its four DIMS paths by a closed or a half-open frame of the same path, 10 and 20 beads; p38
by the first frame, ten and four residues a bead; adenylate kinase by the C-alpha atoms of p38, which are of
another fold. Rows: the stage without a reference; the reference superposed on the beads as a body; the plain
prototype (neighbourhoods within 0.8 nm, all alike, as rigid as possible); what the package makes of it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import torch
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent / "beads"))
from ensembles import data_folder
from header import header
from trace_metrics import figures
from transferable import helices

from hpcbackmap.protein.residues import CIS_BORDER
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.trace.guided import Guided
from hpcbackmap.stages.trace.reference import Reference

COLUMNS = (
    "method", "RMSD Å", "best", "lDDT", "wrong links %", "cis errors per frame", "close residues %",
    "turns found / left-handed %", "spread / error", "set aside", "ms",
)  # fmt: skip
BATCH = 4
"""Frames that go through the stage together."""


def trajectory(name: str) -> tuple[str, np.ndarray]:
    """One-letter sequence, and C-alpha atoms [F, N, 3], nm."""
    place = data_folder() / name
    read = mdtraj.load(f"{place}.xtc", top=f"{place}_top.pdb")
    calpha = read.topology.select("name CA")
    return "".join(read.topology.to_fasta(0)), read.xyz[:, calpha].astype(np.float64)


def superposed(reference: np.ndarray, to: np.ndarray, bead: np.ndarray) -> np.ndarray:
    """The reference [N, 3] on beads [B, 3] as a body."""
    target = to[bead]
    centre, middle = reference.mean(0), target.mean(0)
    u, _, v = np.linalg.svd((reference - centre).T @ (target - middle))
    u[:, 2] *= np.sign(np.linalg.det(u @ v))
    return (reference - centre) @ (u @ v) + middle


def prototype(
    reference: np.ndarray, beads: np.ndarray, bead: np.ndarray, rounds: int = 30
) -> np.ndarray:
    """As rigid as possible, every pair within 0.8 nm alike, beads exact."""
    n, b = len(bead), len(beads)
    i, j = cKDTree(reference).query_pairs(0.8, output_type="ndarray").T
    system = np.zeros((n + b, n + b))
    for first, second in ((i, j), (j, i)):
        np.add.at(system, (first, first), 1.0)
        np.add.at(system, (first, second), -1.0)
    system[n + bead, np.arange(n)] = system[np.arange(n), n + bead] = 1 / np.bincount(bead)[bead]
    inverse = np.linalg.inv(system + np.diag([1e-9] * n + [0.0] * b))
    vectors, x = reference[i] - reference[j], superposed(reference, beads, bead)
    for _ in range(rounds):
        outer = np.zeros((n, 3, 3))
        for end in (i, j):
            np.add.at(outer, end, vectors[:, :, None] * (x[i] - x[j])[:, None, :])
        u, _, v = np.linalg.svd(outer)
        u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]
        turn = u @ v
        asked = np.einsum("ea,eab->eb", vectors, 0.5 * (turn[i] + turn[j]))
        pull = np.zeros((n, 3))
        np.add.at(pull, i, asked)
        np.add.at(pull, j, -asked)
        x = (inverse @ np.concatenate([pull, beads]))[:n]
    return x


class Case:
    """One protein cut into beads; truth [F, N, 3]."""

    def __init__(self, sequence: str, bead: np.ndarray, truth: np.ndarray, members: int):
        self.topology = topology_from_sequence([sequence])
        lengths = ",".join(map(str, np.bincount(bead)))
        self.ladder = build_ladder(self.topology, ["fg", "ca", f"ucg:{lengths}"])
        self.bead, self.truth, self.members = bead, truth, members
        self.beads = np.stack([self.ladder.mappings[-1].apply(each) for each in truth])
        stage = load_artifact(shipped_artifact("ucg-ca", "trace"))
        self.without: dict[str, dict[str, float]] = {}
        self.stage = stage.at_rung(f"{self.ladder.resolutions[-1]}-ca").eval()

    def rows(self, reference: np.ndarray) -> dict[str, dict[str, float]]:
        guided = Guided(self.stage, Reference("reference", "", self.topology, reference)).eval()
        if not self.without:
            found = {
                "stage, one answer": self._of_stage(self.stage, None),
                "stage, members": self._of_stage(self.stage, self.members),
            }
            self.without = {name: self._row(*each) for name, each in found.items()}
        found = {
            "reference as a body": self._each(lambda b: superposed(reference, b, self.bead)),
            "plain prototype": self._each(lambda b: prototype(reference, b, self.bead)),
            "reference, one answer": self._of_stage(guided, None),
            "reference, members": self._of_stage(guided, self.members),
        }
        return self.without | {name: self._row(*each) for name, each in found.items()}

    def _each(self, make: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, float, float]:
        began = time.process_time()
        made = np.stack([make(beads) for beads in self.beads])
        return made[None], time.process_time() - began, 0.0

    @torch.no_grad()
    def _of_stage(self, stage: Stage, members: int | None) -> tuple[np.ndarray, float, float]:
        """Structures [M, F, N, 3], CPU seconds, and frames in which the reference was set aside."""
        system = collate([stage.describe(self.ladder)])
        began, made, aside = time.process_time(), [], 0.0
        for first in range(0, len(self.beads), BATCH):
            beads = self.beads[first : first + BATCH]
            centre = beads.mean(1, keepdims=True)
            coarse = torch.from_numpy(beads - centre).float()
            noises = None
            if members is not None:
                numbers = list(range(first, first + len(beads)))
                shape = (beads.shape[1], stage.noise_width)
                noises = [
                    torch.from_numpy(frame_noise(0, "benchmark", numbers, k, *shape))
                    for k in range(members)
                ]
            found = stage.draw(coarse, system, noises)
            made.append(torch.stack(found.structures).double().numpy() + centre)
            aside += float(found.set_aside.sum()) if found.set_aside is not None else 0.0
        return np.concatenate(made, axis=1), time.process_time() - began, aside

    def _row(self, made: np.ndarray, seconds: float, aside: float) -> dict[str, float]:
        frames, rows = len(self.truth), []
        for number, truth in enumerate(self.truth):
            links = np.linalg.norm(np.diff(truth, axis=0), axis=-1) < CIS_BORDER
            row = figures(made[:, number : number + 1], truth[None], links)
            here = np.linalg.norm(np.diff(made[:, number], axis=1), axis=-1) < CIS_BORDER
            row["cis"] = float((here != links).sum(1).mean())
            right, left = helices(truth)
            turns = [helices(each) for each in made[:, number]]
            row["turns"] = float(right.sum())
            row["found"] = float(np.mean([(right & each).sum() for each, _ in turns]))
            row["left"] = float(np.mean([(each & ~left).sum() for _, each in turns]))
            rows.append(row)
        total = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        return total | {"ms": 1e3 * seconds / frames / len(made), "aside": aside / frames}


def line(name: str, row: dict[str, float]) -> str:
    spread = f"{row['spread_ratio']:.2f}" if "spread_ratio" in row else ""
    cells = (
        name, f"{row['rmsd_angstrom']:.2f}", f"{row['best_rmsd_angstrom']:.2f}", f"{row['lddt']:.3f}",
        f"{row['bad_links_percent']:.2f}", f"{row['cis']:.2f}", f"{row['clashing_residues_percent']:.2f}",
        f"{100 * row['found'] / row['turns']:.0f} / {100 * row['left'] / row['turns']:.1f}", spread,
        f"{100 * row['aside']:.0f} %", f"{row['ms']:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def mean_rows(cases: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        name: {key: float(np.mean([case[name][key] for case in cases])) for key in cases[0][name]}
        for name in cases[0]
    }


def all_cases(members: int, every: int) -> dict[str, dict[str, dict[str, float]]]:
    paths = [trajectory(f"adenylate_kinase/adk_dims_{letter}") for letter in "abcd"]
    kinase, p38 = trajectory("p38/p38_md")
    found: dict[str, dict[str, dict[str, float]]] = {}

    def say(title: str, cases: list[dict[str, dict[str, float]]]) -> None:
        found[title] = mean_rows(cases)
        print(
            f"{title}:",
            *(line(name, row) for name, row in found[title].items()),
            sep="\n",
            flush=True,
        )

    for count in (10, 20):
        bead = np.arange(len(paths[0][0])) * count // len(paths[0][0])
        made = [Case(letters, bead, path[every::every], members) for letters, path in paths]
        pairs = list(zip(made, (path for _, path in paths), strict=True))
        say(f"Adenylate kinase, {count} beads, closed reference", [c.rows(x[0]) for c, x in pairs])
        say(
            f"Adenylate kinase, {count} beads, half-open reference",
            [c.rows(x[len(x) // 2]) for c, x in pairs],
        )
        wrong = p38[0, : len(bead)]
        say(f"Adenylate kinase, {count} beads, reference of another fold", [made[0].rows(wrong)])
    for size in (10, 4):
        bead = np.arange(len(kinase)) // size
        say(
            f"p38, {size} residues a bead",
            [Case(kinase, bead, p38[every::every], members).rows(p38[0])],
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--every", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for title, rows in all_cases(arguments.members, arguments.every).items():
        lines += [f"## {title}", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [*(line(name, row) for name, row in rows.items()), ""]
    head = header("Beads to C-alpha with a known structure of the protein")
    arguments.out.write_text("\n".join([*head, *lines]))


if __name__ == "__main__":
    main()
