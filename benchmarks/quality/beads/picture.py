"""Pictures for README and docs/ultra-coarse.md: one unseen chain as beads, C-alpha trace, atoms, three members.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/beads/picture.py docs/images [--residues 4 10]

The chain is the one of median length of the test split of static_more; seed 0, members 0, 1 and 2: nothing is
picked.
"""

import argparse
import csv
import os
from pathlib import Path

import mdtraj
import numpy as np
import torch

from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.report.pictures import ladder_picture, members_picture
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact

MEMBERS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--residues", type=int, nargs="*", default=[4, 10])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    folder = Path(arguments.data) / "static_more"
    with (folder / "index.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == "test"]
    rows.sort(key=lambda row: (int(row["residues"]), row["file"]))
    file = rows[len(rows) // 2]["file"]
    loaded = mdtraj.load(str(folder / file))
    topology, atoms, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], file)
    truth = loaded.xyz[0, atoms]
    for size in arguments.residues:
        ladder = build_ladder(topology, ["fg", "ca", f"ucg:/{size}"])
        name = ladder.resolutions[-1]
        beads = ladder.coarsen(truth[None])[name]
        trace = load_artifact(shipped_artifact("beads-ca")).at_rung(f"{name}-ca")
        chain = Chain([trace, load_artifact(shipped_artifact())], ladder, torch.device("cpu"))
        members = chain.run_members(beads.astype(np.float32), [0], range(MEMBERS), 0)
        levels = {key: values[0] for key, values in members[0].items()} | {name: beads[0]}
        drawn = np.stack([member["fg"][0] for member in members])
        for kind, figure in (
            ("ladder", ladder_picture(ladder, truth, levels, drawn)),
            ("members", members_picture(ladder, truth, drawn)),
        ):
            path = arguments.output / f"ultra-coarse-{size}-{kind}.png"
            figure.savefig(path, dpi=100, bbox_inches="tight")
            print(f"{path}: {file}, {topology.n_residues} residues, {len(beads[0])} beads")


if __name__ == "__main__":
    main()
