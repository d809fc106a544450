"""Ingest for launchers that want a script: ``mpirun -n 4 python launch/ingest.py CAMPAIGN``.

Takes what ``hpcbackmap ingest`` takes.
"""

import sys

from hpcbackmap.cli.app import main

main(["ingest", *sys.argv[1:]])
