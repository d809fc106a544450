"""The Python face: trajectories in, trajectories out; the same bits as the commands give.

Errors are those of `hpcbackmap.runtime.errors`, each with the sentence that the command would print. Log lines
go to the logger ``hpcbackmap``.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mdtraj

    from hpcbackmap.stages.base import Stage
    from hpcbackmap.store.store import FrameStore

__all__ = ["backmap", "evaluate", "load_stage", "open_store"]


def backmap(
    trajectory: "mdtraj.Trajectory | str | PathLike[str] | Sequence[str | PathLike[str]]",
    members: int = 1,
    mode: bool = False,
    seed: int = 0,
    representation: str = "auto",
    *,
    output: "str | PathLike[str] | None" = None,
    top: "str | PathLike[str] | None" = None,
    frames: str | None = None,
    chains: Sequence[str] = (),
    select: str | None = None,
    sequence: str | None = None,
    molecule: int | None = None,
    unit: str | None = None,
    segments: "str | int | Sequence[int] | None" = None,
    bead_center: str = "ca",
    stage: "str | PathLike[str]" = "shipped",
    hydrogens: bool = False,
    relax: bool = False,
    ph: float = 7.0,
    names: str = "pdb",
    disulphides: str | None = None,
    coherence: int = 1,
    reference: "str | PathLike[str] | None" = None,
    secondary_structure: str | None = None,
    device: str = "auto",
    on_bad_frame: str = "skip",
    strict: bool = False,
    keep_others: bool = False,
    force: bool = False,
) -> "list[mdtraj.Trajectory] | list[Path]":
    """All heavy atoms for a coarse-grained trajectory, as `hpcbackmap backmap` makes them.

    Parameters
    ----------
    trajectory
        An `mdtraj.Trajectory`, a file, or several files of one topology, in order.
    members
        Structures to draw for each frame.
    mode
        Instead of drawing, the one most likely structure of each frame.
    seed
        Of the draws. A structure depends on seed, frame number, member and the frame, on nothing else.
    representation
        What the particles are: ``ca``, ``com``, ``bb``, ``martini3``, ``backbone``, …; ``auto`` is told from
        names and distances.
    output
        ``.xtc``, ``.dcd``, ``.pdb``, ``.cif``, ``.gro`` or ``.zarr``: write there, a file for each member,
        rather than hold all in memory. A call that was interrupted continues where it stopped.
    top
        File that names the particles, where the trajectory does not.
    frames
        ``START:STOP:STRIDE`` of the input.
    chains, select
        Letters of the chains to read; particles to read, as mdtraj selects them.
    sequence
        FASTA file or letters, where residue names say nothing.
    molecule
        Residues of each molecule, where neither names nor numbers tell where one ends.
    unit
        Of length, where it is not that of the file's format: ``nm``, ``A``, or a number of nm.
    segments
        Of beads of several residues (with ``sequence``): how many each, or one number for all; default: evenly.
    bead_center
        What such a bead is: ``ca``, mean of its C-alpha atoms; ``atoms`` or ``mass``, mean or mass centre of
        its heavy atoms.
    stage
        Folder of a trained ca-fg stage; ``shipped`` is the one of the package.
    hydrogens, ph
        Add hydrogens, as acids and bases carry them at this pH; histidines have theirs on the nitrogen that is
        bonded to an acceptor in most of a few structures, on NE2 where none is.
    relax
        Minimise each structure in a force field, its heavy atoms restrained to where they were made; one that
        cannot be stays as it was, with a warning. Needs OpenMM (``hpcbackmap[md]``).
    names
        Of residues and atoms of structures with hydrogens: ``pdb``, ``amber``, ``charmm``, ``gromacs``.
    disulphides
        Bonded cysteines, ``A:5-A:55,A:14-A:38``; ``auto``: as distances propose; ``none``. Default: those that
        the file names.
    coherence
        Frames over which the noise of a member stays alike, so that a trajectory does not flicker; 1: each
        frame is drawn on its own.
    reference
        Of beads of several residues: file of a structure of the protein, which is carried onto the beads of
        each frame; where its fold is another one, a frame is made without it.
    secondary_structure
        Of beads of several residues: a letter H, E, C or ? for each residue (chains apart by ``/``), or a file
        of them.
    on_bad_frame
        ``skip`` leaves a frame out whose trace is broken, ``repair`` closes it, ``stop`` raises InputError.
    strict
        Refuse an input of which something would be left out.
    keep_others
        Pass nucleic acids, ligands, lipids, ions and water through as they are, after the protein.
    force
        Replace an output that exists.

    Returns
    -------
    list of mdtraj.Trajectory, or, with ``output``, of paths
        One for each member, frames in the order of the input; frames that could not be made are left out (the
        times say which).

    Examples
    --------
    A helix of twelve C-alpha atoms, and two of the structures that it may stand for:

    >>> import mdtraj, numpy as np, hpcbackmap
    >>> from hpcbackmap.protein.topology import topology_from_sequence
    >>> turn = np.deg2rad(100) * np.arange(12)
    >>> helix = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(12)], axis=1)
    >>> calpha = mdtraj.Trajectory(helix, topology_from_sequence(["ACDEFGHIKLMN"]).to_mdtraj("ca"))
    >>> first, second = hpcbackmap.backmap(calpha, members=2, seed=1)
    >>> first.n_frames, first.n_residues, first.n_atoms
    (1, 12, 95)
    >>> bool(abs(first.xyz - second.xyz).max() > 0.05)
    True
    >>> kept = first.xyz[0, first.topology.select("name CA")]
    >>> bool(abs(kept - helix).max() < 1e-5)
    True
    """
    from hpcbackmap.backmapping.files import backmap_files, backmap_in_memory
    from hpcbackmap.backmapping.request import Request
    from hpcbackmap.runtime.mpi import get_comm

    request = Request(
        output=None if output is None else Path(output),
        top=None if top is None else str(top),
        members=members,
        mode=mode,
        seed=seed,
        frames=frames,
        chains=tuple(chains),
        select=select,
        stages=() if stage == "shipped" else (str(stage),),
        hydrogens=hydrogens,
        relax=relax,
        ph=ph,
        names=names,
        disulphides=disulphides,
        coherence=coherence,
        reference=None if reference is None else str(reference),
        secondary_structure=secondary_structure,
        device=device,
        on_bad_frame=on_bad_frame,
        force=force,
        representation=representation,
        sequence=sequence,
        strict=strict,
        keep_others=keep_others,
        molecule=molecule,
        unit=unit,
        segments=_segments(segments),
        bead_center=bead_center,
    )
    inputs = _inputs(trajectory)
    with _settings_of_torch():
        if output is None:
            return backmap_in_memory(inputs, request, get_comm())[0]
        result = backmap_files(inputs, request, get_comm())
    return [Path(path) for path in result["output"]]


def evaluate(
    truth: "mdtraj.Trajectory | str | PathLike[str]",
    generated: "mdtraj.Trajectory | str | PathLike[str] | Sequence[str | PathLike[str]]",
    truth_top: "str | PathLike[str] | None" = None,
    generated_top: "str | PathLike[str] | None" = None,
) -> dict[str, Any]:
    """Judge structures against the truth frame by frame, as `hpcbackmap evaluate TRUTH GENERATED` does.

    Trajectories, files (with the topologies that they need) or frame stores of one molecule; several files of
    ``generated`` are members of every frame. Returns the record that the command prints with ``--json``:
    ``rows``, each with ``metrics`` by name.
    """
    from hpcbackmap.evaluation.files import evaluate_files

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcbackmap-")))
        given = [
            _as_files(item, top, folder, name)
            for name, item, top in (
                ("truth", truth, truth_top),
                ("generated", generated, generated_top),
            )
        ]
        (real, real_top), (made, made_top) = given
        return evaluate_files(real[0], made, real_top, made_top)


def load_stage(artifact: "str | PathLike[str]" = "shipped", name: str = "ca-fg") -> "Stage[Any]":
    """A trained stage, in evaluation mode, on the CPU; ``shipped``: stage ``name`` of the package.

    `sample`, `samples` and `mode` of the stage make fine positions of coarse ones, `elbo` and `log_weight`
    bound the log-likelihood of fine positions in nats; `hpcbackmap.stages.base.Stage` describes them.

    Examples
    --------
    >>> import numpy as np, torch, hpcbackmap
    >>> from hpcbackmap.protein.topology import topology_from_sequence
    >>> from hpcbackmap.resolution.build import build_ladder
    >>> from hpcbackmap.stages.base import collate
    >>> stage = hpcbackmap.load_stage("shipped")
    >>> stage.name, stage.coarse, stage.fine
    ('ca-fg', 'ca', 'fg')
    >>> ladder = build_ladder(topology_from_sequence(["ACDEFGHIKLMN"]), ["fg", "ca"])
    >>> system = collate([stage.describe(ladder)])
    >>> turn = np.deg2rad(100) * np.arange(12)
    >>> helix = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(12)], axis=1)
    >>> coarse = torch.tensor(helix, dtype=torch.float32)[None]
    >>> likely = stage.mode(coarse, system)
    >>> likely.shape
    torch.Size([1, 95, 3])
    >>> noise = torch.randn(1, 12, stage.noise_width, generator=torch.Generator().manual_seed(0))
    >>> drawn = stage.sample(coarse, system, noise)
    >>> stage.elbo(drawn, coarse, system, noise[..., : stage.elbo_noise]).total.shape
    torch.Size([1, 1])
    """
    from hpcbackmap.runtime.shipped_weights import shipped_artifact
    from hpcbackmap.stages.artifact import load_artifact

    return load_artifact(shipped_artifact(name) if artifact == "shipped" else Path(artifact))


def open_store(path: "str | PathLike[str]") -> "FrameStore":
    """Open a frame store for reading: ``open_store("frames.zarr").system(name).read("fg", 0, 10)``, in nm.

    Raises InputError if it is missing, no frame store, of a newer format, or incomplete.
    """
    from hpcbackmap.store.store import open_store

    return open_store(str(path))


def _segments(given: "str | int | Sequence[int] | None") -> str | None:
    """As the command line has them."""
    if given is None or isinstance(given, str | int):
        return None if given is None else str(given)
    return ",".join(str(length) for length in given)


def _inputs(trajectory: Any) -> "list[str] | mdtraj.Trajectory":
    if isinstance(trajectory, str | PathLike):
        return [str(trajectory)]
    if isinstance(trajectory, Sequence) and not hasattr(trajectory, "xyz"):
        return [str(path) for path in trajectory]
    return trajectory


def _as_files(
    item: Any, top: str | PathLike[str] | None, folder: Path, name: str
) -> tuple[list[str], str | None]:
    """Paths and topology of what may be a trajectory in memory, which is written to ``folder``."""
    if not hasattr(item, "xyz"):
        paths = [item] if isinstance(item, str | PathLike) else item
        return [str(path) for path in paths], None if top is None else str(top)
    place, named = folder / f"{name}.dcd", folder / f"{name}.pdb"
    item.save_dcd(str(place))
    item[0].save_pdb(str(named))
    return [str(place)], str(named)


@contextmanager
def _settings_of_torch() -> Iterator[None]:
    """A run computes with one thread and deterministic algorithms; the caller's settings come back."""
    import torch

    threads = torch.get_num_threads()
    before = torch.get_deterministic_debug_mode()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(before)
