"""Backmapping for launchers that want a script: ``mpirun -n 4 python launch/backmap.py CAMPAIGN``.

Takes what ``hpcbackmap backmap`` takes.
"""

import sys

from hpcbackmap.cli.app import main

main(["backmap", *sys.argv[1:]])
