"""What a command costs before it computes: CPU time of whole processes, in turns with `import torch`.

    python benchmarks/throughput/start_up.py [--rounds 7]

Least and median of the rounds, user and system time. What a process costs depends on what else the cores
do, and `import torch`, which nothing that draws structures can do without, is in every round: the last
column is the least in units of its least.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from header import REPOSITORY, header

EXAMPLE = REPOSITORY / "examples" / "trpcage" / "trpcage_top.pdb"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_in(Path(folder))
        spent: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(rounds):
            for what, words in commands.items():
                spent[what].append(cpu_seconds(words))
    unit = min(spent["`import torch`"])
    rows = [
        f"| {what} | {min(each):.2f} | {statistics.median(each):.2f} | {min(each) / unit:.2f} |"
        for what, each in spent.items()
    ]
    table = ["| process | CPU-s, least | median | of torch |", "|---|---|---|---|", *rows]
    print("\n".join([*header("Start-up"), *table]))


def commands_in(folder: Path) -> dict[str, tuple[str, ...]]:
    """What is run, by what it is; the input is the C-alpha atoms of ten residues."""
    lines = EXAMPLE.read_text().splitlines()
    calpha = [line for line in lines if line[:4] == "ATOM" and line[12:16].strip() == "CA"]
    peptide = folder / "ca.pdb"
    peptide.write_text("\n".join([*calpha[:10], "END", ""]))
    program = ("-m", "hpcbackmap")
    output = ("-o", str(folder / "a.pdb"), "--force")
    return {
        "`import torch`": ("-c", "import torch"),
        "`hpcbackmap --help`": (*program, "--help"),
        "`backmap`, a file that is missing": (*program, "backmap", "missing.pdb", *output),
        "`backmap`, a suffix it cannot write": (*program, "backmap", str(peptide), "-o", "a.docx"),
        "`backmap`, ten residues": (*program, "backmap", str(peptide), *output),
    }


def cpu_seconds(words: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
