"""Commands one after another in the ranks of one mpirun, which import and meet once.

mpirun -n 3 python in_turn.py '[["backmap", "campaign.yaml"], …]'
"""

import json
import sys

from hpcbackmap.cli.app import main

for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
