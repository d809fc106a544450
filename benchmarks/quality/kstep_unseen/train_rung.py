"""Train one rung for so many CPU seconds, in a process of its own, and say what it cost.

    python benchmarks/quality/kstep_unseen/train_rung.py FOLDER COARSE FINE --top 10 --seconds 300

FOLDER/checkpoint.pt is what a stopped training goes on from, with the same command. Leaves
FOLDER/weights.safetensors and, at last, FOLDER/cost.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kstep"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes"))
from training import peak_mb

__all__ = ["load_rung", "train_in_process"]

CALIBRATED = 300
"""Chains that mean places of atoms are taken from."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("coarse")
    parser.add_argument("fine")
    parser.add_argument("--top", type=int, required=True, help="Residues of the largest beads.")
    parser.add_argument("--seconds", type=float, required=True, help="CPU time of the training.")
    parser.add_argument("--chains", type=Path, required=True, help="Training chains, cached.")
    arguments = parser.parse_args()
    import numpy as np
    import torch
    from atoms_at_once import AtomsAtOnce
    from by_the_minute import Run
    from chains import load_chains
    from nested import SHORTEST
    from rungs import batches, describe, new_stage, optimisers_of
    from safetensors.torch import save_file

    from hpcbackmap.runtime.allocator import keep_freed_memory
    from hpcbackmap.stages.base import collate

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    stage = new_stage(arguments.coarse, arguments.fine)
    chains = [c for c in load_chains(arguments.chains) if c.topology.n_residues >= SHORTEST]
    before = peak_mb()
    run = Run(stage, optimisers_of(stage), arguments.folder / "checkpoint.pt", arguments.seconds)
    if isinstance(stage, AtomsAtOnce) and not run.step:
        fine, coarse, systems = zip(
            *(describe(stage, chain, arguments.top) for chain in chains[:CALIBRATED]), strict=True
        )
        stage.calibrate(torch.cat(fine, 1), torch.cat(coarse, 1), collate(systems))
        run.average = {key: value.clone() for key, value in stage.state_dict().items()}
    rng = np.random.default_rng([0, run.step])

    def terms(batch: tuple) -> dict:
        fine, coarse, system = batch
        shape = (1, coarse.shape[1], stage.elbo_noise)
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        stage.at_step(run.step)
        return stage.loss(fine, coarse, system, noise)

    told = run.train(batches(chains, stage, arguments.top, rng), terms)
    save_file(stage.state_dict(), arguments.folder / "weights.safetensors")
    cost = {
        **told,
        "parameters": sum(each.numel() for each in stage.parameters()),
        "peak_mb": peak_mb(),
        "peak_before_mb": before,
        "chains": len(chains),
    }
    (arguments.folder / "cost.json").write_text(json.dumps(cost))


def train_in_process(folder: Path, coarse: str, fine: str, top: int, seconds: float, chains: Path):
    """Cost of a training, which is not repeated."""
    record = folder / "cost.json"
    if not record.exists():
        options = ["--top", str(top), "--seconds", str(seconds), "--chains", str(chains)]
        command = [sys.executable, __file__, str(folder), coarse, fine, *options]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("a") as log:
            subprocess.run(command, check=True, stdout=log)
    return json.loads(record.read_text())


def load_rung(folder: Path, coarse: str, fine: str):
    """The trained stage."""
    from rungs import new_stage
    from safetensors.torch import load_file

    stage = new_stage(coarse, fine)
    stage.load_state_dict(load_file(folder / "weights.safetensors"))
    return stage.eval()


if __name__ == "__main__":
    main()
