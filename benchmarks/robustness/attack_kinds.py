"""What `attacks.py` tries: attacks by kind, and the files that they need."""

import codecs
import gzip
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import mdtraj
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trajectories import EXAMPLE

__all__ = ["KINDS", "Attack", "example"]

SEQUENCE = "NLYIQWLKDGGPSSGRPPPS"


class Attack(NamedTuple):
    """arguments: of the command. prepare: makes what is attacked with. second: arguments of another
    one at the same time. kill: seconds after which the first one gets SIGKILL; then it is run again.
    residues: of an output, where they are known.
    """

    what: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    second: tuple[str, ...] = ()
    kill: float = 0.0
    residues: int = 0


def example(folder: Path) -> None:
    """C-alpha atoms of the example: one frame as PDB, 300 as XTC; atoms of it; beads of five residues."""
    atoms = mdtraj.load(str(EXAMPLE / "trpcage.xtc"), top=str(EXAMPLE / "trpcage_top.pdb"))[:300]
    trace = atoms.atom_slice(atoms.topology.select("name CA"))
    trace[0].save_pdb(str(folder / "ca.pdb"))
    trace[0].save_gro(str(folder / "ca.gro"))
    trace.save_xtc(str(folder / "run.xtc"))
    trace[:5].save_dcd(str(folder / "run.dcd"))
    trace[:5].save_hdf5(str(folder / "run.h5"))
    atoms[0].save_pdb(str(folder / "ref.pdb"))
    top = mdtraj.Topology()
    for number in range(4):
        residue = top.add_residue(
            "UNK", top.add_chain() if not number else top.chain(0), number + 1
        )
        top.add_atom("B", mdtraj.element.virtual, residue)
    beads = trace.xyz[:2].reshape(2, 4, 5, 3).mean(2)
    mdtraj.Trajectory(beads, top).save_pdb(str(folder / "beads.pdb"))
    (folder / "map.yaml").write_text(f"bead: {np.repeat(np.arange(4), 5).tolist()}\n")


TRAJECTORY = ("run.xtc", "--top", "ca.pdb", "-o", "out.xtc")
BEADS = ("beads.pdb", "--sequence", SEQUENCE, "-o", "out.pdb")


def kills(rng: np.random.Generator) -> Iterator[Attack]:
    for _ in range(8):
        yield Attack("SIGKILL, then again", TRAJECTORY, kill=float(rng.uniform(0.2, 6)))


def flips(rng: np.random.Generator) -> Iterator[Attack]:
    """Of what is read beside the trajectory and of the trajectory itself."""
    for name, arguments in (
        ("ca.pdb", ("ca.pdb", "-o", "out.pdb")),
        ("ca.gro", ("ca.gro", "-o", "out.pdb")),
        ("run.dcd", ("run.dcd", "--top", "ca.pdb", "-o", "out.pdb")),
        ("run.h5", ("run.h5", "-o", "out.pdb")),
        ("map.yaml", (*BEADS, "--beads", "map.yaml")),
        ("ref.pdb", (*BEADS, "--reference", "ref.pdb")),
    ):
        for _ in range(3):
            seed = int(rng.integers(2**31))
            yield Attack(
                f"a bit of {name}", arguments, lambda folder, n=name, s=seed: flip(folder / n, s)
            )


def flip(path: Path, seed: int) -> None:
    rng, data = np.random.default_rng(seed), bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def truncations(rng: np.random.Generator) -> Iterator[Attack]:
    for name, arguments in (
        ("ca.pdb", ("ca.pdb", "-o", "out.pdb")),
        ("ca.gro", ("ca.gro", "-o", "out.pdb")),
        ("run.xtc", TRAJECTORY),
        ("run.dcd", ("run.dcd", "--top", "ca.pdb", "-o", "out.pdb")),
        ("run.h5", ("run.h5", "-o", "out.pdb")),
        ("map.yaml", (*BEADS, "--beads", "map.yaml")),
        ("ref.pdb", (*BEADS, "--reference", "ref.pdb")),
    ):
        for share in (0.0, float(rng.uniform(0.1, 0.9)), 0.999):
            yield Attack(
                f"{name} cut to {share:.3f}",
                arguments,
                lambda folder, n=name, s=share: cut(folder / n, s),
            )


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def encodings(rng: np.random.Generator) -> Iterator[Attack]:
    """Text as other programs and systems save it."""
    changes: dict[str, Callable[[bytes], bytes]] = {
        "a byte order mark": lambda text: codecs.BOM_UTF8 + text,
        "UTF-16": lambda text: text.decode().encode("utf-16"),
        "carriage returns and line feeds": lambda text: text.replace(b"\n", b"\r\n"),
        "carriage returns alone": lambda text: text.replace(b"\n", b"\r"),
        "gzip under a plain name": gzip.compress,
    }
    for name in ("ca.pdb", "ca.gro"):
        for what, change in changes.items():
            yield Attack(
                f"{name} with {what}",
                (name, "-o", "out.pdb"),
                lambda folder, n=name, c=change: (folder / n).write_bytes(
                    c((folder / n).read_bytes())
                ),
                residues=20,
            )


def joined(rng: np.random.Generator) -> Iterator[Attack]:
    """Trajectories of which the later frames have other atoms."""
    for suffix in ("xtc", "trr"):
        for atoms in (1, 19, 21, 150):
            yield Attack(
                f"{suffix} that goes on with {atoms} atoms",
                (f"both.{suffix}", "--top", "ca.pdb", "-o", "out.pdb"),
                lambda folder, s=suffix, n=atoms: join(folder, s, n),
                residues=20,
            )


def join(folder: Path, suffix: str, atoms: int) -> None:
    first = mdtraj.load(str(folder / "run.xtc"), top=str(folder / "ca.pdb"))[:3]
    other = mdtraj.load(str(folder / "ref.pdb")).atom_slice(range(atoms))
    parts = [folder / f"part{number}.{suffix}" for number in range(2)]
    for part, trajectory in zip(parts, (first, other), strict=True):
        trajectory.save(str(part))
    (folder / f"both.{suffix}").write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def code(rng: np.random.Generator) -> Iterator[Attack]:
    """Text that could run, in every name that is the user's."""
    for text in (
        "$(touch owned)",
        "`touch owned`",
        ";touch owned",
        "<script>",
        "a\nb",
        "a\0b",
        "-rf",
        "%s%n",
    ):
        yield Attack(f"output {text!r}", ("ca.pdb", "-o", f"{text}.pdb"))
        yield Attack(f"selection {text!r}", ("ca.pdb", "-o", "out.pdb", "--select", text))
        yield Attack(f"sequence {text!r}", ("ca.pdb", "-o", "out.pdb", "--sequence", text))
    yield Attack(
        "selection that imports",
        ("ca.pdb", "-o", "out.pdb", "--select", "__import__('os').system('touch owned')"),
    )
    yield Attack(
        "mapping that is an object",
        (*BEADS, "--beads", "map.yaml"),
        lambda folder: (folder / "map.yaml").write_text(
            "bead: !!python/object/apply:os.system ['touch owned']\n"
        ),
    )


def writers(rng: np.random.Generator) -> Iterator[Attack]:
    other = ("run.xtc", "--top", "ca.pdb", "-o", "out.xtc", "--seed", "5")
    yield Attack("two alike", TRAJECTORY, second=TRAJECTORY)
    yield Attack("two with other seeds", TRAJECTORY, second=other)
    yield Attack("two with --force", (*TRAJECTORY, "--force"), second=(*other, "--force"))
    yield Attack("two formats", TRAJECTORY, second=("run.xtc", "--top", "ca.pdb", "-o", "out.pdb"))


def bounds(rng: np.random.Generator) -> Iterator[Attack]:
    for option, values in (
        ("--members", ("0", "-1", "1000000000", "1.5")),
        ("--seed", ("-1", str(2**63), "x")),
        ("--frames", ("5:1", "::0", "a:b", "0:999999999999", "-1:")),
        ("--unit", ("0", "-1", "nan", "inf", "1e400", "mile")),
        ("--molecule", ("0", "7", "1000000000000")),
        ("--part", ("1/1", "0/0", "x", "0/1000000")),
        ("--coherence", ("0", "-3", "nan")),
        ("--ph", ("nan", "-1", "99")),
        ("--chains", ("Z", ",", "A,A")),
        ("--representation", ("martini9", "ucg", "")),
        ("--device", ("tpu",)),
        ("--names", ("x",)),
        ("--on-bad-frame", ("x",)),
        ("--segments", ("0", "1e9", "999999999999", ",")),
        ("--bead-center", ("x",)),
        ("--disulphides", ("A:1-A:2", "x", "A:1-A:1")),
    ):
        for value in values:
            yield Attack(f"{option} {value}", ("ca.pdb", "-o", "out.pdb", option, value))
    for number in ("nan", "inf", "1e30", "99999999"):
        yield Attack(
            f"a coordinate of {number}",
            ("ca.gro", "-o", "out.pdb"),
            lambda folder, n=number: replaced(folder / "ca.gro", n),
        )
    yield Attack(
        "a count of 10^9 atoms",
        ("ca.gro", "-o", "out.pdb"),
        lambda folder: counted(folder / "ca.gro"),
    )


def replaced(path: Path, number: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[5] = lines[5][:20] + number.rjust(8)[:8] + lines[5][28:]
    path.write_text("".join(lines))


def counted(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "1000000000\n", *lines[2:]]))


def names(rng: np.random.Generator) -> Iterator[Attack]:
    """Files that are links, pipes, folders, devices, or have names in any script."""
    yield Attack(
        "non-ASCII",
        ("bäd ö 名.pdb", "-o", "José 名.pdb"),
        lambda f: (f / "ca.pdb").rename(f / "bäd ö 名.pdb"),
    )
    yield Attack(
        "non-ASCII XTC",
        ("ü.xtc", "--top", "ca.pdb", "-o", "ø.xtc"),
        lambda f: (f / "run.xtc").rename(f / "ü.xtc"),
    )
    yield Attack("a long name", ("ca.pdb", "-o", "n" * 300 + ".pdb"))
    yield Attack(
        "output is a loop",
        ("ca.pdb", "-o", "loop.pdb"),
        lambda f: (f / "loop.pdb").symlink_to("loop.pdb"),
    )
    yield Attack(
        "output is a folder",
        ("ca.pdb", "-o", "there.pdb", "--force"),
        lambda f: (f / "there.pdb").mkdir(),
    )
    yield Attack(
        "output leads to the input",
        ("ca.pdb", "-o", "way.pdb", "--force"),
        lambda f: (f / "way.pdb").symlink_to("ca.pdb"),
    )
    yield Attack(
        "output exists", ("ca.pdb", "-o", "keep.pdb"), lambda f: (f / "keep.pdb").write_text("mine")
    )
    yield Attack("no such folder", ("ca.pdb", "-o", "no/where.pdb"))
    for option, arguments in (
        ("input", ("pipe", "-o", "out.pdb")),
        ("top", ("run.xtc", "--top", "pipe", "-o", "out.xtc")),
        ("beads", (*BEADS, "--beads", "pipe")),
        ("reference", (*BEADS, "--reference", "pipe")),
    ):
        for kind, make in PIPES.items():
            given = tuple(f"it{kind}" if word == "pipe" else word for word in arguments)
            yield Attack(
                f"{option} is {kind}", given, lambda folder, m=make, k=kind: m(folder / f"it{k}")
            )


PIPES: dict[str, Callable[[Path], object]] = {
    "pipe.pdb": os.mkfifo,
    "folder.pdb": Path.mkdir,
    "device.pdb": lambda path: path.symlink_to("/dev/zero"),
    "loop.pdb": lambda path: path.symlink_to(path.name),
    "empty.pdb": Path.touch,
    "binary.pdb": lambda path: path.write_bytes(bytes(range(256)) * 40),
}


def mappings(rng: np.random.Generator) -> Iterator[Attack]:
    for text in (
        "bead: 5",
        "bead: [0, 0, 2]",
        "bead: [a]",
        "- 1",
        "{",
        "bead: [[0]]",
        "bead: [-1]",
        "bead: [.nan]",
        "&a [*a]",
        "bead: [999999999999999999999]",
        "bead: [1000000000000]",
        "bead: " + "[" * 5000,
    ):
        yield Attack(
            f"mapping {text[:20]!r}",
            (*BEADS, "--beads", "map.yaml"),
            lambda folder, t=text: (folder / "map.yaml").write_text(t),
        )


def references(rng: np.random.Generator) -> Iterator[Attack]:
    for what, change in (
        ("far away", lambda line: line[:30] + " 9999.999" + line[39:]),
        ("no numbers", lambda line: line[:30] + "     nan" * 3 + line[54:]),
        ("at one place", lambda line: line[:30] + "   1.000" * 3 + line[54:]),
        ("another protein", lambda line: line[:17] + "GLY" + line[20:]),
        ("no C-alpha", lambda line: line[:12] + " CX " + line[16:]),
        ("unknown residues", lambda line: line[:17] + "ZZZ" + line[20:]),
    ):
        yield Attack(
            f"reference {what}",
            (*BEADS, "--reference", "ref.pdb"),
            lambda folder, c=change: edited(folder / "ref.pdb", c),
        )


def edited(path: Path, change: Callable[[str], str]) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(line) if line.startswith("ATOM") else line for line in lines))


KINDS: dict[str, Callable[[np.random.Generator], Iterator[Attack]]] = {
    "kills": kills,
    "flips": flips,
    "truncations": truncations,
    "encodings": encodings,
    "joined": joined,
    "code": code,
    "writers": writers,
    "bounds": bounds,
    "names": names,
    "mappings": mappings,
    "references": references,
}
