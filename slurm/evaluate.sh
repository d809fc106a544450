#!/usr/bin/env bash
#SBATCH --job-name=hpcbackmap-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Judge a backmapped campaign, compute its likelihoods and write the report:
#
#     sbatch --ntasks-per-node=16 slurm/evaluate.sh CAMPAIGN [KEY=VALUE]...
#
# What your site needs: site.sh beside this file.
set -euo pipefail

# sbatch runs a copy of this file; the job's record knows where the original is.
here=$(dirname "${BASH_SOURCE[0]}")
if [ ! -r "$here/job.sh" ]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(/.*\)/evaluate\.sh\( .*\)*$|\1|p')
fi
starts_over=yes
. "$here/job.sh"

start "${mpirun[@]}" "${hpcbackmap[@]}" evaluate "$@"
collect
if [ "$code" -eq 0 ]; then
    start "${mpirun[@]}" "${hpcbackmap[@]}" evaluate --elbo "$@"
    collect
fi
if [ "$code" -eq 0 ]; then
    start "${hpcbackmap[@]}" report "$@"
    collect
fi
finish "$code"
