"""Attacks on what `backmap FILE` takes and leaves, by kind and verdict.

    python benchmarks/robustness/attacks.py [--kinds K …] [--seed S]

Every attack is one command of the package in a child of its own, with a limit of time and of memory. It is
*held* if the command ends with an error of the package in one line, or with 0 and structures that are whole,
and leaves nothing of a failed run behind; *traceback*, *hangs* and *wrong* (an output that is not whole, or a
file that was not to be touched) are faults. Kinds: kills, flips, truncations, encodings, joined, code, writers,
bounds, names, mappings, references. Damages of stores, artifacts and checkpoints are counted by `flips.py`,
kills of campaigns and trainings by `kill_runs.py` and `kill_training.py`, broken texts by
`tests/unit/test_fuzz.py`.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from multiprocessing.context import ForkProcess
from pathlib import Path

import mdtraj
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from attack_kinds import KINDS, Attack, example
from header import header

LIMIT = 90.0
"""Seconds."""
MEMORY = 10 * 2**30
CODES = {0, 1, 2, 3, 4, 5, 75}
"""With which commands end."""
VERDICTS = ("held", "traceback", "hangs", "wrong")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warm()
    print("\n".join(header("Attacks on `backmap FILE`")))
    print(f"| kind | tried | {' | '.join(VERDICTS)} |\n|---|{'---|' * (1 + len(VERDICTS))}")
    total, faults = Counter[str](), []
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        for kind in arguments.kinds:
            rng, counts = np.random.default_rng(arguments.seed), Counter[str]()
            for number, attack in enumerate(KINDS[kind](rng)):
                verdict, words = tried(attack, Path(folder) / f"{kind}{number}")
                counts[verdict] += 1
                if verdict != "held":
                    faults.append(f"- {kind}: {attack.what}: {verdict}: {words}")
            print(row(kind, counts), flush=True)
            total += counts
    print(row("all", total))
    print("\n".join(["", *faults] if faults else ["", "No faults."]))
    raise SystemExit(bool(faults))


def row(kind: str, counts: Counter[str]) -> str:
    return f"| {kind} | {counts.total()} | " + " | ".join(str(counts[v]) for v in VERDICTS) + " |"


def warm() -> None:
    """What every child needs, loaded once."""
    import hpcbackmap.backmapping.files
    import hpcbackmap.cli.app
    import hpcbackmap.cli.backmap
    import hpcbackmap.stages.genzprot.model  # noqa: F401


def tried(attack: Attack, folder: Path) -> tuple[str, str]:
    """Verdict, and the last line that was said."""
    folder.mkdir()
    example(folder)
    attack.prepare(folder)
    before = {path: stamp(path) for path in folder.rglob("*")}
    begun = started(attack, folder)
    ended = [ends(process) for process in begun]
    said = [(folder / f"said{k + 1}").read_text(errors="replace") for k in range(len(begun))]
    last = " / ".join((text.strip().splitlines() or [""])[-1][-160:] for text in said)
    if not all(ended):
        return "hangs", last
    codes = [process.exitcode for process in begun]
    if any("Traceback" in text for text in said) or set(codes) - CODES:
        return "traceback", f"exit codes {codes}: {last}"
    if wrong := harm(attack, folder, codes, before):
        return "wrong", wrong
    shutil.rmtree(folder, ignore_errors=True)
    return "held", last


def started(attack: Attack, folder: Path) -> list[ForkProcess]:
    """Processes that run to their end."""
    begun = [start(attack.arguments, folder, "1")]
    if attack.second:
        begun.append(start(attack.second, folder, "2"))
    if attack.kill:
        begun[0].join(attack.kill)
        begun[0].kill()
        begun[0].join()
        begun = [start(attack.arguments, folder, "1")]
    return begun


def harm(attack: Attack, folder: Path, codes: list, before: dict) -> str:
    """What is not as it should be in the folder; empty if nothing is."""
    for arguments, code in zip((attack.arguments, attack.second), codes, strict=False):
        if code or "--part" in arguments:
            continue
        output = folder / arguments[arguments.index("-o") + 1]
        if wrong := not_whole(output, attack.residues):
            return wrong
    for path, was in before.items():
        if path.name in ("keep.pdb", "ca.pdb", "run.xtc") and stamp(path) != was:
            return f"{path.name} was changed"
    return "a name ran as a command" if (folder / "owned").exists() else ""


def start(arguments: tuple[str, ...], folder: Path, name: str) -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(
        target=child, args=(arguments, folder, name)
    )
    process.start()
    return process


def child(arguments: tuple[str, ...], folder: Path, name: str) -> None:
    """The command, in a forked process."""
    from hpcbackmap.cli.app import main as command

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(folder)
    said = os.open(f"said{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    command(["backmap", *arguments])


def ends(process: ForkProcess) -> bool:
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        return False
    return True


def stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def not_whole(output: Path, residues: int = 0) -> str:
    """What is wrong with an output of so many residues (0: it is not known); empty if nothing is."""
    copy = output.with_name(f"made{output.suffix}")  # C readers want names in ASCII
    try:
        shutil.copy(output, copy)
        if output.suffix == ".pdb":
            made = mdtraj.load(str(copy))
        else:
            top = shutil.copy(
                output.with_name(f"{output.stem}_top.pdb"), output.with_name("top.pdb")
            )
            made = mdtraj.load(str(copy), top=str(top))
    except Exception as error:
        return f"{output.name} cannot be read: {type(error).__name__}"
    if residues not in (0, made.n_residues):
        return f"{output.name}: {made.n_residues} residues, not {residues}"
    if not np.isfinite(made.xyz).all():
        return f"{output.name}: not finite"
    bonds = np.array([(a.index, b.index) for a, b in made.topology.bonds])
    lengths = np.linalg.norm(made.xyz[:, bonds[:, 0]] - made.xyz[:, bonds[:, 1]], axis=-1)
    return f"{output.name}: a bond of {lengths.max():.2f} nm" if lengths.max() > 0.35 else ""


if __name__ == "__main__":
    main()
