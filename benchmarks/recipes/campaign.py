"""Campaign of the shipped weights: one stage learns from some 2,000 protein chains.

    HPCBACKMAP_DATA=FOLDER python benchmarks/recipes/campaign.py --ladder ca > shipped.yaml
    hpcbackmap ingest shipped.yaml && hpcbackmap train shipped.yaml --stage ca-fg

The folder holds ``static_more`` and ``static_bm5``, single chains with an ``index.csv`` each. Left out are
relatives of the ensembles that the weights are judged by, and chains from repositories with an academic
licence. Chains that are related form a cluster, of which an epoch sees one.
"""

import argparse
import csv
import os
import sys
from collections import Counter, defaultdict
from pathlib import Path

import yaml

LADDERS = {
    "ca": ["fg", "ca"],
    "4": ["fg", "ca", "ucg:/4"],
    "10": ["fg", "ca", "ucg:/10"],
}
"""By what the stage starts from: C-alpha atoms, or beads of so many residues."""
RELATIVES = frozenset({
    "1B6C_l_1", "1BUH_r_1", "1JWH_l_1", "2OZA_l_1", "2OZA_r_1", "2OZA_r_2", "4IZ7_r_1",
    "1QA9_r_1", "2JEL_l_1", "3A4S_r_1", "3FN1_r_1", "1jbb_A_1", "1jbb_B_1", "1am7_A_1",
    "1am7_A_2",
})  # fmt: skip
"""Chains related to p38, CD2, HPr, the two E2 enzymes and lambda lysozyme, which are tests."""
ACADEMIC = frozenset({"Acellera/moleculekit"})
BROKEN = frozenset({"1lyv_A_1"})
"""Its OXT is 0.4 nm from the carbon."""
WORD = 5
SHARED_WORDS = 3
"""Two chains with so many common words of five residues are related; by chance, three do not happen."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ladder", choices=list(LADDERS), default="ca")
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    yaml.safe_dump(campaign(arguments.data, arguments.ladder), sys.stdout, sort_keys=False)


def campaign(data: Path, ladder: str) -> dict:
    """The campaign; ``ladder`` is a key of `LADDERS`."""
    chains = read_chains(data)
    stage = "ca-fg" if ladder == "ca" else f"ucgr{ladder}-ca"
    kind = {"kind": "genzprot"} if ladder == "ca" else {"kind": "trace"}
    return {
        "name": f"shipped-{stage}",
        "ladder": LADDERS[ladder],
        "systems": [
            {"name": name, "trajectories": [str(row["path"])], "cluster": row["cluster"]}
            for name, row in chains.items()
        ],
        "split": {
            "by": "system",
            "validation_names": [n for n, row in chains.items() if row["split"] == "val"],
            "test_names": [n for n, row in chains.items() if row["split"] == "test"],
        },
        "stages": {
            stage: {
                "model": kind,
                "train": {
                    "batch_size": 16,
                    "max_steps": 20000,
                    "validate_every": 500,
                    "validation_frames": 128,
                    "checkpoint_every": 500,
                },
            }
        },
    }


def read_chains(data: Path) -> dict[str, dict]:
    """Chains to use by name: ``path``, ``sequence``, ``split`` (train, val, test) and ``cluster``."""
    more, bm5 = _index(data / "static_more"), _index(data / "static_bm5")
    join_clusters(bm5, more)
    return {
        name: row
        for name, row in {**more, **bm5}.items()
        if name not in RELATIVES | BROKEN and row.get("repo") not in ACADEMIC
    }


def _index(folder: Path) -> dict[str, dict]:
    with (folder / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        Path(row["file"]).name.removesuffix(".pdb.gz"): row
        | {"path": folder.resolve() / row["file"], "split": row.get("split", "train")}
        for row in rows
    }


def join_clusters(chains: dict[str, dict], clustered: dict[str, dict]) -> None:
    """Give every one of ``chains`` the cluster of the training chain that it shares most words with.

    Chains of both kinds count, longer ones of ``chains`` first; one without relatives founds a cluster.
    """
    seen: dict[str, set[tuple[str, str]]] = defaultdict(set)  # word -> (cluster, chain)
    for name, row in clustered.items():
        if row["split"] == "train":
            _remember(seen, name, row)
    for name, row in sorted(chains.items(), key=lambda item: (-len(item[1]["sequence"]), item[0])):
        shared = Counter(owner for word in _words(row["sequence"]) for owner in seen.get(word, ()))
        (owner, count), *_ = shared.most_common(1) or [((f"b-{name}", name), SHARED_WORDS)]
        row["cluster"] = owner[0] if count >= SHARED_WORDS else f"b-{name}"
        _remember(seen, name, row)


def _remember(seen: dict, name: str, row: dict) -> None:
    for word in _words(row["sequence"]):
        seen[word].add((row["cluster"], name))


def _words(sequence: str) -> set[str]:
    return {sequence[i : i + WORD] for i in range(len(sequence) - WORD + 1)}


if __name__ == "__main__":
    main()
