"""The topology of a protein from the residues of a file, by their names, and of an mdtraj topology.

What is no protein is left out and counted; what may be protein and is not known is an error that names it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcbackmap.protein.residue_kinds import modified_parent, residue_kind
from hpcbackmap.protein.residues import RESIDUES, standard_atom_name, standard_residue_name
from hpcbackmap.protein.topology import Topology, named_chains
from hpcbackmap.runtime.errors import InputError

if TYPE_CHECKING:
    import mdtraj

__all__ = ["NamedResidue", "topology_from_mdtraj", "topology_from_residues"]

PEPTIDE_BREAK = 0.20
"""C-N distance (nm) above which two residues of a chain are not bonded; the bond is 0.133 nm."""
CALPHA_BREAK = 0.45
"""CA-CA distance (nm) used instead where only C-alpha positions are known; trans is 0.38 nm."""
DISULPHIDE = 0.25
"""SG-SG distance (nm) below which two cysteines are bonded; the bond is 0.205 nm."""


class NamedResidue(NamedTuple):
    """A residue by the names of a file. chain: row of its molecule. atoms: name, element (empty: not known) and
    file index of each.
    """

    name: str
    number: int
    insertion: str
    chain: int
    atoms: list[tuple[str, str, int]]


def topology_from_mdtraj(
    top: "mdtraj.Topology", positions: np.ndarray, source: str
) -> tuple[Topology, np.ndarray, dict[str, Any]]:
    """`topology_from_residues` of an mdtraj topology."""
    residues = [
        NamedResidue(
            residue.name,
            int(residue.resSeq),
            getattr(residue, "insertion", ""),
            residue.chain.index,
            [
                (atom.name, "" if atom.element is None else atom.element.symbol, atom.index)
                for atom in residue.atoms
            ],
        )
        for residue in top.residues
    ]
    chain_ids = [str(getattr(chain, "chain_id", None) or "") for chain in top.chains]
    return topology_from_residues(residues, chain_ids, positions, source)


def topology_from_residues(
    residues: list[NamedResidue],
    chain_ids: list[str],
    positions: np.ndarray,
    source: str,
    steps: np.ndarray | None = None,
) -> tuple[Topology, np.ndarray, dict[str, Any]]:
    """Heavy-atom system of the residues of a file and one frame of coordinates.

    chain_ids: of each chain row, empty where it has none. positions: [atoms in file, 3], nm; decides chain
    breaks and disulphides. source: file name for messages. steps: distance of each residue from the
    one before it, instead of that in ``positions`` for C-alpha atoms.
    Returns the topology, the file index of each of its atoms (int64 [A]; coordinates in our order are
    ``positions[index]``), and the number of file atoms left out, by kind.
    A file with C-alpha atoms only gives the topology that its sequence implies, an index of C-alpha
    atoms ([R]), and OXT at every chain end.
    Raises InputError that names the residue for an unknown residue, a missing or a superfluous atom.
    """
    found, dropped = _read_residues(residues, chain_ids, source)
    if not found:
        raise InputError(f"{source}: no protein residues")
    ca_only = all(set(atoms) == {"CA"} for _, _, atoms in found)
    rows = [residues[place] for place, _, _ in found]
    used = sorted({row.chain for row in rows})
    place = {chain: number for number, chain in enumerate(used)}
    chain_index = tuple(place[row.chain] for row in rows)
    last = [i == len(rows) - 1 or chain_index[i + 1] != chain_index[i] for i in range(len(rows))]
    if not ca_only:
        _require_all_atoms(found, residues, chain_ids, source)
    oxt = tuple(last) if ca_only else tuple("OXT" in atoms for _, _, atoms in found)
    atoms_of = [atoms for _, _, atoms in found]
    known = None
    if steps is not None and ca_only:
        beside = np.diff([at for at, _, _ in found], prepend=-2) == 1
        known = np.where(beside, steps[[at for at, _, _ in found]], np.nan)
    insertions = tuple(row.insertion for row in rows)
    topology = Topology(
        sequence=tuple(name for _, name, _ in found),
        chain_index=chain_index,
        chain_ids=named_chains(chain_ids[c] for c in used),
        residue_numbers=tuple(row.number for row in rows),
        bonded=_bonded(atoms_of, chain_index, positions, ca_only, known),
        has_oxt=oxt,
        disulphides=() if ca_only else _disulphides(found, positions),
        insertion_codes=insertions if any(insertions) else (),
    )
    names = ("CA",) if ca_only else None
    index = [
        atoms[name]
        for (_, residue, atoms), has_oxt in zip(found, oxt, strict=True)
        for name in names or RESIDUES[residue].atoms + (("OXT",) if has_oxt else ())
    ]
    return topology, np.array(index, dtype=np.int64), dict(dropped)


def _read_residues(
    residues: Sequence[NamedResidue], chain_ids: Sequence[str], source: str
) -> tuple[list[tuple[int, str, dict[str, Any]]], dict[str, Any]]:
    """(place in ``residues``, standard name, atoms by name) of those of protein, and what is left out."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    dropped: Counter[str] = Counter()
    for place, residue in enumerate(residues):
        parent = modified_parent(residue.name)
        name = standard_residue_name(residue.name) or parent
        if name is None or _is_calcium(residue):
            dropped[_left_out(residue, chain_ids, source)] += len(residue.atoms)
            continue
        atoms = {}
        for file_name, element, index in residue.atoms:
            if element in ("H", "D", "VS"):
                dropped["virtual site" if element == "VS" else "hydrogen"] += 1
                continue
            atom = standard_atom_name(name, file_name)
            expected = RESIDUES[name].atoms + ("OXT",)
            if parent and atom not in expected:
                dropped[f"atoms that make {residue.name} of {parent}"] += 1
                continue
            if atom in atoms or atom not in expected:
                raise InputError(
                    f"{source}: residue {name}{residue.number}{residue.insertion} has an unexpected atom "
                    f"{file_name}; expected " + " ".join(RESIDUES[name].atoms) + " (OXT)"
                )
            atoms[atom] = index
        found.append((place, name, atoms))
    return found, dropped


def _is_calcium(residue: NamedResidue) -> bool:
    return len(residue.atoms) == 1 and residue.atoms[0][1] == "Ca"


def _left_out(residue: NamedResidue, chain_ids: Sequence[str], source: str) -> str:
    """What a residue that is no amino acid is. Raises InputError for one that may be an unknown amino acid."""
    kind = residue_kind(residue.name)
    names = {name.strip().upper() for name, _, _ in residue.atoms}
    if kind in ("unknown", "D-residue") and "CA" in names and not _is_calcium(residue):
        what = "a D-residue" if kind == "D-residue" else "unknown residue"
        chain = chain_ids[residue.chain].strip() or residue.chain
        raise InputError(
            f"{source}: {what} {residue.name}{residue.number}{residue.insertion} in chain {chain}; leave it "
            "out with an atom selection or rename it to its standard parent"
        )
    if len(residue.atoms) == 1 and kind == "unknown":
        kind = "solvent or ion"
    return f"{'other' if kind == 'unknown' else kind} {residue.name}"


def _require_all_atoms(
    found: list[tuple[int, str, dict[str, Any]]],
    residues: Sequence[NamedResidue],
    chain_ids: Sequence[str],
    source: str,
) -> None:
    for place, name, atoms in found:
        residue = residues[place]
        missing = [atom for atom in RESIDUES[name].atoms if atom not in atoms]
        if missing:
            chain = chain_ids[residue.chain].strip() or residue.chain
            raise InputError(
                f"{source}: residue {name}{residue.number}{residue.insertion} in chain {chain} lacks heavy "
                f"atom(s) {' '.join(missing)}; complete the model or leave the residue out"
            )


def _bonded(
    atoms: Sequence[dict[str, Any]],
    chain_index: Sequence[int],
    positions: np.ndarray,
    ca_only: bool,
    steps: np.ndarray | None,
) -> tuple[bool, ...]:
    tail, head, limit = ("CA", "CA", CALPHA_BREAK) if ca_only else ("C", "N", PEPTIDE_BREAK)
    bonded = [False]
    for i in range(1, len(atoms)):
        distance = np.linalg.norm(positions[atoms[i][head]] - positions[atoms[i - 1][tail]])
        if steps is not None and np.isfinite(steps[i]):
            distance = steps[i]
        bonded.append(bool(chain_index[i] == chain_index[i - 1] and distance < limit))
    return tuple(bonded)


def _disulphides(
    residues: list[tuple[int, str, dict[str, Any]]], positions: np.ndarray
) -> tuple[tuple[int, int], ...]:
    """Pairs of cysteines within reach, the nearest first, each cysteine in one pair; ascending."""
    cysteines = [i for i, (_, name, _) in enumerate(residues) if name == "CYS"]
    near = []
    for k, i in enumerate(cysteines):
        for j in cysteines[k + 1 :]:
            gap = positions[residues[i][2]["SG"]] - positions[residues[j][2]["SG"]]
            if np.linalg.norm(gap) < DISULPHIDE:
                near.append((float(np.linalg.norm(gap)), i, j))
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(near):
        if not {i, j} & {residue for pair in pairs for residue in pair}:
            pairs.append((i, j))
    return tuple(sorted(pairs))
