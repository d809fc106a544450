#!/usr/bin/env bash
#SBATCH --job-name=hpcbackmap-backmap
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Backmap a campaign on one Slurm allocation:
#
#     sbatch --nodes=8 --ntasks-per-node=48 slurm/backmap.sh CAMPAIGN [KEY=VALUE]...
#
# As a job array (--array=0-15) every task does its part of the shards.
#
# The run begins no shard in the last five minutes of the walltime (margin_minutes in site.sh) and exits with
# 75; the job then requeues itself and does what is missing. What your site needs: site.sh beside this file.
set -euo pipefail

# sbatch runs a copy of this file; the job's record knows where the original is.
here=$(dirname "${BASH_SOURCE[0]}")
if [ ! -r "$here/job.sh" ]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(/.*\)/backmap\.sh\( .*\)*$|\1|p')
fi
. "$here/job.sh"

limit=()
end=$(squeue --noheader --job "$SLURM_JOB_ID" --format %e)
if [ "$end" != N/A ]; then # a job may have no walltime
    minutes=$((($(date -d "$end" +%s) - $(date +%s)) / 60))
    limit=(--time-limit="$((minutes > 2 * margin_minutes ? minutes - margin_minutes : minutes / 2))")
fi

part=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    part=(--part="$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT")
fi

start "${mpirun[@]}" "${hpcbackmap[@]}" backmap "$@" "${limit[@]}" "${part[@]}"
collect
finish "$code"
