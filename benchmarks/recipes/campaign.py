"""Campaign of the shipped weights: one stage learns from some 5,200 protein chains.

    HPCBACKMAP_DATA=FOLDER python benchmarks/recipes/campaign.py --ladder ca > shipped.yaml
    hpcbackmap ingest shipped.yaml && hpcbackmap train shipped.yaml --stage ca-fg

The folder holds ``static_more``, ``static_bm5`` and, where it is there, ``static_3``: single chains with an
``index.csv`` each. Left out are relatives of the ensembles that the weights are judged by, chains from
repositories with an academic licence, and what ``static_3`` keeps for judging. Chains that are related form
a cluster, of which an epoch sees one.
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
    "1am7_A_2", "1z2u_A_1", "1z2u_A_2", "4ccg_A_1", "4ccg_A_2",
})  # fmt: skip
"""Chains related to p38, CD2, HPr, the two E2 enzymes and lambda lysozyme, which are tests."""
ACADEMIC = frozenset({"Acellera/moleculekit"})
BROKEN = frozenset({"1lyv_A_1"})
"""Its OXT is 0.4 nm from the carbon."""
JUDGED = frozenset({"val2", "test2"})
"""Splits of ``static_3`` that neither train nor choose weights."""
LINKED = """
c0005+c0343+c0843 c0024+c0719 c0077+c0178+c0179+c0207 c0007+c0065+c0102+c0236+c0552 c0004+c0305+c0652
c0013+c0062+c0079+c0189 c0055+c0157+c0308+c0410+c0416 c0047+c0524+c0729 c0002+c0025 c0006+c0522 c0026+c0458
c0128+c0219 c0265+c0313+c0445+c0448 c0030+c0851 c0001+c0862 c0078+c0360 c0574+c0693 c0235+c0854 c0042+c0484
c0408+c0797 c0098+c0830 c0635+c0654 c0199+c0773 c0488+c0786 c0124+c0205 c0516+c0517 c0028+c0227 c0151+c0346
c0101+c0610 c0291+c0293 c0443+c0444 c0476+c0739 c0185+c0438 c0036+c0103
"""
"""Clusters of ``static_more`` that chains of ``static_3`` link, by its README; it uses the first name."""
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
    third = _index(data / "static_3") if (data / "static_3").is_dir() else {}
    if third:
        rename_linked(more)
        third = {f"{name}-3" if name in more else name: row for name, row in third.items()}
    join_clusters(bm5, {**more, **third})
    return {
        name: row
        for name, row in {**more, **third, **bm5}.items()
        if name not in RELATIVES | BROKEN
        and row.get("repo") not in ACADEMIC
        and row["split"] not in JUDGED
    }


def rename_linked(chains: dict[str, dict]) -> None:
    """Give clusters that are linked one name, that of the first."""
    names = {other: group.split("+")[0] for group in LINKED.split() for other in group.split("+")}
    for row in chains.values():
        row["cluster"] = names.get(row["cluster"], row["cluster"])


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
