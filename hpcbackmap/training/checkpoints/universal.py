"""DeepSpeed's converter of checkpoints, on files that are no pickles: ``python -m …universal ARGUMENTS``."""

import sys

from hpcbackmap.training.checkpoints.state_files import without_pickles

__all__: list[str] = []

if __name__ == "__main__":
    from deepspeed.checkpoint import ds_to_universal

    sys.argv[0] = ds_to_universal.__file__
    with without_pickles():
        ds_to_universal.main(ds_to_universal.parse_arguments())
