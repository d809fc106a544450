"""Networks that say how far each residue is likely to be off, fitted to errors of the shipped stages.

    HPCBACKMAP_DATA=FOLDER python benchmarks/recipes/train_expected_error.py WORK [--limit N] [--plot FILE]

Structures are made from the validation chains of static_more and static_3, one answer and one member each
from every kind of input, and compared with the truth as they lie. Errors of the test chains of both judge:
reliability (error seen in tenths of the error expected), slope and rank correlation. Prints a Markdown record
and writes `hpcbackmap/weights/expected-error/model.safetensors`. WORK keeps what was made, so that a run that
was stopped goes on.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from header import header
from representations import KINDS, as_particles, read_chains

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.representations.coarsen import coarse_grained
from hpcbackmap.resolution.representations.detect import read_as
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.calpha.trace import calpha_trace
from hpcbackmap.stages.expected_error import FEATURES, WEIGHTS, bead_features, residue_features
from hpcbackmap.stages.given import given_of
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.sealed import seal

SETS = {"fit": (("static_more", "val"), ("static_3", "val2")),
        "judge": (("static_more", "test"), ("static_3", "test2"))}  # fmt: skip
SIZES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25)
"""Residues per bead; a chain gets two of them."""
ALIKE = {
    "PHE": (("CD1", "CD2"), ("CE1", "CE2")), "TYR": (("CD1", "CD2"), ("CE1", "CE2")),
    "ASP": (("OD1", "OD2"),), "GLU": (("OE1", "OE2"),), "ARG": (("NH1", "NH2"),),
}  # fmt: skip
"""Atoms whose names may be exchanged."""
WIDTH, STEPS, RATE, DECAY = 24, 1500, 1e-2, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--limit", type=int, help="Only so many chains of each split.")
    parser.add_argument("--plot", type=Path, help="Reliability of ca, com and beads as a picture.")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    keep_freed_memory()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    tables = {}
    for use, splits in SETS.items():
        path = arguments.work / f"{use}.npz"
        if not path.exists():
            made = errors_made(arguments.data, splits, arguments.limit)
            np.savez(path, **made)
        tables[use] = dict(np.load(path))
    tensors, rows = {}, []
    for kind in (*KINDS, "beads"):
        network = fitted(tables["fit"][f"{kind}.x"], tables["fit"][f"{kind}.y"])
        for number, layer in enumerate(m for m in network if isinstance(m, nn.Linear)):
            tensors[f"{kind}.{number}.weight"] = layer.weight.detach().clone()
            tensors[f"{kind}.{number}.bias"] = layer.bias.detach().clone()
        rows.append((kind, *judged(network, tables, kind)))
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    about = {"recipe": "benchmarks/recipes/train_expected_error.py"}
    save_file(tensors, WEIGHTS, seal(tensors, about))
    print("\n".join([*header("Expected error of each residue"), *report(rows)]))
    if arguments.plot:
        plot(rows, arguments.plot)


def errors_made(data: Path, splits, limit: int | None) -> dict[str, np.ndarray]:
    """For each kind, ``kind.x`` features [n, FEATURES] of the answer and of the member, ``kind.y`` their errors
    in nm, both [n, 2, …], and ``kind.n`` residues per bead [n].
    """
    heavy, trace = (load_artifact(shipped_artifact(name)) for name in ("ca-fg", "beads-ca"))
    found: dict[str, list] = {}
    number, begun = 0, time.monotonic()
    for folder, split in splits:
        for topology, truth in read_chains(data / folder, split, limit):
            number += 1
            if number % 20 == 0:
                print(
                    f"{folder} {split}: chain {number}, {time.monotonic() - begun:.0f} s",
                    file=sys.stderr,
                )
            for place, kind in enumerate(KINDS):
                if kind != "ca" and (number + place) % 2:
                    continue
                keep(found, kind, topology, truth, from_kind(heavy, kind, topology, truth, number))
            for size in (SIZES[number % len(SIZES)], SIZES[(number // 2 + 5) % len(SIZES)]):
                if topology.n_residues >= 3 * size:
                    ladder = build_ladder(topology, ["fg", "ca", f"ucg:/{size}"])
                    made = from_beads(heavy, trace, ladder, truth, number)
                    keep(found, "beads", topology, truth, made, ladder)
    return {key: np.concatenate(parts) for key, parts in found.items()}


def noise_of(stage, number: int, beads: int) -> torch.Tensor:
    return torch.from_numpy(frame_noise(0, stage.name, [number], 0, beads, stage.noise_width))


@torch.no_grad()
def from_kind(heavy, kind, topology, truth, number) -> np.ndarray:
    """One answer and one member, [2, A, 3]."""
    names, residue, positions = coarse_grained(kind, topology, truth[None])
    reading = read_as(kind, as_particles(topology, names, residue, positions[0].astype(np.float32)))
    frames = positions.astype(np.float32)
    calpha = torch.from_numpy(calpha_trace(reading, frames).calpha)
    given = given_of(reading, frames)
    system = collate([heavy.describe(build_ladder(topology, ["fg", "ca"]))])
    noise = noise_of(heavy, number, calpha.shape[1])
    member = heavy.samples(calpha, system, [noise], given)[0]
    return torch.cat([heavy.mode(calpha, system, given), member]).numpy()


@torch.no_grad()
def from_beads(heavy, trace, ladder, truth, number) -> np.ndarray:
    name = ladder.resolutions[-1]
    stage = trace.at_rung(f"{name}-ca")
    beads = torch.from_numpy(ladder.coarsen(truth[None])[name].astype(np.float32))
    first, second = collate([stage.describe(ladder)]), collate([heavy.describe(ladder)])
    made = [heavy.mode(stage.mode(beads, first), second)]
    calpha = stage.samples(beads, first, [noise_of(stage, number, beads.shape[1])])[0]
    made += heavy.samples(calpha, second, [noise_of(heavy, number, calpha.shape[1])])
    return torch.cat(made).numpy()


def keep(found, kind, topology, truth, made, ladder=None) -> None:
    beads = None if ladder is None else bead_features(ladder, ladder.resolutions[-1])
    x = np.stack([residue_features(topology, frame, beads) for frame in made], 1)
    y = np.stack([residue_errors(topology, frame, truth) for frame in made], 1)
    size = np.ones(len(x)) if beads is None else np.exp(beads[:, 0])
    for name, values in (("x", x.astype(np.float32)), ("y", y.astype(np.float32)), ("n", size)):
        found.setdefault(f"{kind}.{name}", []).append(values)


def residue_errors(topology, frame, truth) -> np.ndarray:
    """Root mean square displacement of the heavy atoms of each residue, the better of both namings, [R]."""
    residue = topology.atom_residue
    size = np.bincount(residue)
    best = np.full(topology.n_residues, np.inf)
    for exchanged in (False, True):
        order = np.arange(topology.n_atoms)
        if exchanged:
            place = {(residue[i], name): i for i, name in enumerate(topology.atom_names)}
            for number, name in enumerate(topology.sequence):
                for a, b in ALIKE.get(name, ()):
                    i, j = place.get((number, a)), place.get((number, b))
                    if i is not None and j is not None:
                        order[[i, j]] = j, i
        gap = np.square(frame[order] - truth).sum(1)
        best = np.minimum(best, np.bincount(residue, gap) / size)
    return np.sqrt(best)


def fitted(x: np.ndarray, y: np.ndarray) -> nn.Sequential:
    """x [n, 2, FEATURES], y [n, 2] of one answer and of a member. The gamma deviance makes the mean right."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2)
    )  # fmt: skip
    inputs, errors = torch.from_numpy(x), torch.from_numpy(y).clamp_min(1e-4)
    nn.init.zeros_(network[-1].weight)
    with torch.no_grad():
        network[-1].bias.copy_(errors.mean(0).log())
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(inputs), (2048,), generator=generator)
        log_mean = outputs(network, inputs[rows])
        loss = (errors[rows] * torch.exp(-log_mean) + log_mean).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network


def outputs(network: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Column 0 for one answer and column 1 for a member, each of its own features: [n, 2]."""
    return torch.stack([network(x[:, 0])[:, 0], network(x[:, 1])[:, 1]], 1)


@torch.no_grad()
def judged(network, tables, kind):
    """Of one answer and a member, expected, by type alone and seen [n, 2] each, and residues per bead [n]."""
    table, fit = tables["judge"], tables["fit"]
    expected = outputs(network, torch.from_numpy(table[f"{kind}.x"])).exp().numpy()
    seen, fit_type = table[f"{kind}.y"], type_of(fit[f"{kind}.x"])
    means = np.stack([np.bincount(fit_type, y, len(RESIDUES)) for y in fit[f"{kind}.y"].T], 1)
    means /= np.maximum(np.bincount(fit_type, minlength=len(RESIDUES)), 1)[:, None]
    return expected, means[type_of(table[f"{kind}.x"])], seen, table[f"{kind}.n"]


def type_of(x: np.ndarray) -> np.ndarray:
    return x[:, 0, : len(RESIDUES)].argmax(1)


HEAD = """
Test chains of static_more and static_3, families that nothing was trained or fitted on; Å,
as structures lie. *Slope*: of the means of tenths of residues, seen against expected, by least squares.
*Spearman*: rank correlation of expected and seen error over residues; *by type*: where the mean of its
residue type is expected.

| from | | residues | seen | expected | slope | Spearman | by type | lowest tenth, seen / expected | highest |
|---|---|---|---|---|---|---|---|---|---|"""


def report(rows) -> list[str]:
    lines = HEAD.strip().splitlines()
    for kind, expected, by_type, seen, sizes in rows:
        parts = [(kind, np.ones(len(sizes), bool))]
        if kind == "beads":
            parts += [(f"beads of {n}", np.isclose(sizes, n, rtol=0.13)) for n in (4, 10, 20)]
        for name, chosen in parts:
            for column, what in enumerate(("one answer", "member")):
                columns = (x[chosen, column] for x in (expected, by_type, seen))
                lines.append(line(name, what, *columns))
    return lines


def line(name, what, expected, by_type, seen) -> str:
    if len(seen) < 100:
        return f"| `{name}` | {what} | {len(seen)} | – | – | – | – | – | – | – |"
    tenths = tenths_of(expected, seen)
    slope = np.polyfit(*tenths.T, 1)[0]
    cells = [
        f"{10 * seen.mean():.2f}", f"{10 * expected.mean():.2f}", f"{slope:.2f}",
        f"{spearman(expected, seen):.2f}", f"{spearman(by_type, seen):.2f}",
        *(f"{10 * s:.2f} / {10 * e:.2f}" for e, s in tenths[[0, -1]]),
    ]  # fmt: skip
    return f"| `{name}` | {what} | {len(seen)} | " + " | ".join(cells) + " |"


def tenths_of(expected, seen) -> np.ndarray:
    """Mean expected and seen error of each tenth of residues by expected error, [10, 2]."""
    parts = np.array_split(np.argsort(expected, kind="stable"), 10)
    return np.array([(expected[part].mean(), seen[part].mean()) for part in parts])


def spearman(a, b) -> float:
    ranks = (np.argsort(np.argsort(values, kind="stable")) for values in (a, b))
    return float(np.corrcoef(*ranks)[0, 1])


def plot(rows, path: Path) -> None:
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row[0] in ("ca", "com", "beads")]
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.8))
    for axis, (kind, expected, _, seen, _) in zip(axes, shown, strict=True):
        for column, what in enumerate(("one answer", "member")):
            tenths = 10 * tenths_of(expected[:, column], seen[:, column])
            axis.plot(*tenths.T, "o-", label=what)
        top = axis.get_xlim()[1]
        axis.plot([0, top], [0, top], color="grey", lw=0.8)
        axis.set(title=f"from {kind}", xlabel="expected error (Å)", ylabel="error seen (Å)")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
