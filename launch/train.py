"""Train one stage under any launcher; takes the arguments of ``hpcbackmap train``.

``--config`` may stand before the campaign.

deepspeed --num_accelerators 2 launch/train.py --config CAMPAIGN --stage ca-fg
torchrun --nproc_per_node 2 launch/train.py CAMPAIGN --stage ca-fg
srun python launch/train.py CAMPAIGN --stage ca-fg
mpirun -n 2 python launch/train.py CAMPAIGN --stage ca-fg
"""

import sys

from hpcbackmap.cli.app import main

if __name__ == "__main__":
    # Launchers add --local_rank=N; the environment says it too, and is what counts.
    words = (word.removeprefix("--config=") for word in sys.argv[1:])
    main(["train", *(w for w in words if w != "--config" and not w.startswith("--local"))])
