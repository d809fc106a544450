#!/usr/bin/env bash
# mpirun whose ranks have the time to stop: bash launch/mpirun.sh -n 8 hpcbackmap backmap campaign.yaml
#
# Open MPI kills the ranks half a second after SIGTERM or SIGINT to mpirun, and no setting of it changes that.
# Here these signals reach the ranks as SIGUSR1: they agree on a boundary and end with 75. A second SIGINT
# ends them at once.
set -u
set -m # mpirun in a group of its own, or a terminal's Ctrl-C would reach it, too
"${MPIRUN:-mpirun}" "$@" &
ranks=$!
trap 'kill -USR1 "$ranks" 2>/dev/null; trap "kill -INT $ranks" INT' INT
trap 'kill -USR1 "$ranks" 2>/dev/null' TERM USR1
while :; do # a signal ends `wait` early
    code=0
    wait "$ranks" || code=$?
    kill -0 "$ranks" 2>/dev/null || exit "$code"
done
