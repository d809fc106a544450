"""One artifact from the mean weights of several of one training: its late checkpoints lie in one valley.

    python benchmarks/recipes/average.py OUTPUT ARTIFACT ARTIFACT … --card card.json

The stages must be of one kind and shape. The card (JSON) says what a user should know of data and licence.
"""

import argparse
import json
from pathlib import Path

import torch

from hpcbackmap.stages.artifact import load_artifact, save_artifact


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--card", type=Path, required=True)
    arguments = parser.parse_args()
    stages = [load_artifact(folder) for folder in arguments.artifacts]
    weights = [stage.state_dict() for stage in stages]
    mean = {
        name: torch.stack([each[name].double() for each in weights]).mean(0).to(value.dtype)
        for name, value in weights[0].items()
    }
    stages[0].load_state_dict(mean, strict=True)
    save_artifact(stages[0], arguments.output, json.loads(arguments.card.read_text()))


if __name__ == "__main__":
    main()
