"""Print, as Markdown, the numbers that README.md quotes:  python describe.py [folder]"""

import csv
import itertools
import sys
from pathlib import Path

import mdtraj
import numpy as np
from checks import flaws


def load(folder):
    ensemble = mdtraj.load(folder / "trpcage.xtc", top=folder / "trpcage_top.pdb")
    with open(folder / "frames.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["frame"]) for r in rows] == list(range(len(ensemble)))
    return ensemble, rows


def folded_centre(alphas, folded):
    """The frame, of those given, with the least mean C-alpha RMSD to the others."""
    part = alphas[folded]
    return folded[int(np.argmin([mdtraj.rmsd(part, part, i).mean() for i in range(len(part))]))]


def table(ensemble, rows):
    """One line for every start kind and temperature, then for each start kind, then for all."""
    alphas = ensemble.atom_slice(ensemble.topology.select("name CA"))
    kind = np.array([r["start_kind"] for r in rows])
    kelvin = np.array([int(r["temperature_K"]) for r in rows])
    centre = folded_centre(alphas, np.flatnonzero((kind == "folded") & (kelvin == 300)))
    rmsd, rg = mdtraj.rmsd(alphas, alphas, centre), mdtraj.compute_rg(ensemble)
    print(f"Folded centre: frame {centre}\n")
    print("| start | T (K) | walkers | frames | Rg (nm) | RMSD (nm) | RMSD < 0.3 nm |")
    print("|---|---|---|---|---|---|---|")
    walker = np.array([int(r["walker"]) for r in rows])
    kinds, kelvins = ("folded", "collapsed", "extended"), (*sorted(set(kelvin)), "all")
    for k, t in [*itertools.product(kinds, kelvins), ("all", "all")]:
        mask = ((kind == k) | (k == "all")) & np.array([t in ("all", v) for v in kelvin])
        if mask.any():
            counts = f"{len(set(walker[mask]))} | {mask.sum()}"
            spreads = f"{spread(rg[mask])} | {spread(rmsd[mask])}"
            print(f"| {k} | {t} | {counts} | {spreads} | {(rmsd[mask] < 0.3).mean():.2f} |")


def spread(values):
    return f"{values.min():.2f} / {values.mean():.2f} / {values.max():.2f}"


def observables(ensemble):
    """Name to [frames, components]."""
    pairs = [(i, j) for i in range(20) for j in range(i + 3, 20)]
    alphas = ensemble.topology.select("name CA")
    distances = mdtraj.compute_distances(ensemble, alphas[np.array(pairs)])
    backbone = np.hstack([mdtraj.compute_phi(ensemble)[1], mdtraj.compute_psi(ensemble)[1]])
    rotations = (mdtraj.compute_chi1, mdtraj.compute_chi2, mdtraj.compute_chi3)
    side = np.hstack([compute(ensemble)[1] for compute in rotations])
    return {
        "radius of gyration": mdtraj.compute_rg(ensemble)[:, None],
        "C-alpha distances": distances,
        "phi, psi": np.hstack([np.cos(backbone), np.sin(backbone)]),
        "chi1, chi2, chi3": np.hstack([np.cos(side), np.sin(side)]),
    }


def autocorrelation(series_WTC):
    """[walkers, times, components], centred on the mean over all -> correlation at every lag."""
    x = series_WTC
    lags = range(x.shape[1])
    cov = np.array([(x[:, : x.shape[1] - k] * x[:, k:]).mean(axis=(0, 1)).sum() for k in lags])
    return cov / cov[0]


def decorrelated(ensemble, rows):
    """Frames over statistical inefficiency, about the mean of a (kind, temperature) or a walker."""
    walker = np.array([int(r["walker"]) for r in rows])
    label = [(r["start_kind"], r["temperature_K"]) for r in rows]
    length = int(np.bincount(walker).min())
    print("\n| observable | correlation at 1, 2, 4 frames | effective | about walker means |")
    print("|---|---|---|---|")
    for name, values in observables(ensemble).items():
        counts = []
        for centred in (centre_on(values, label), centre_on(values, list(walker))):
            series = np.stack([centred[walker == w][:length] for w in np.unique(walker)])
            c = autocorrelation(series)
            weight = 1 - np.arange(1, length) / length
            inefficiency = max(1, 1 + 2 * (weight * np.clip(c[1:], 0, None)).sum())
            counts.append((c, len(rows) / inefficiency))
        (c, about_group), (_, about_walker) = counts
        head = ", ".join(f"{c[k]:.2f}" for k in (1, 2, 4) if k < length)
        print(f"| {name} | {head} | {about_group:.0f} | {about_walker:.0f} |")


def centre_on(values, label):
    out = values.astype(float)
    for group in set(label):
        mask = np.array([g == group for g in label])
        out[mask] -= out[mask].mean(axis=0)
    return out


def main():
    ensemble, rows = load(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
    alphas = ensemble.topology.select("name CA")
    steps = mdtraj.compute_distances(ensemble, np.stack([alphas[:-1], alphas[1:]], axis=1))
    print(f"{len(ensemble)} frames, {ensemble.n_atoms} atoms; flaws: {flaws(ensemble) or 'none'}")
    print(f"C-alpha steps {steps.min():.3f}-{steps.max():.3f} nm\n")
    table(ensemble, rows)
    decorrelated(ensemble, rows)


if __name__ == "__main__":
    main()
