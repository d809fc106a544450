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
# The run begins no shard in the last five minutes of the walltime (HPCBACKMAP_MARGIN_MINUTES) and exits
# with 75; the job then requeues itself and does what is missing, at most 20 times. Modules and
# environments: site.sh beside this file.
set -euo pipefail

# Slurm runs a copy of this file; the job's record knows where the original is.
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')
site=$(dirname "$script")/site.sh
if [ -r "$site" ]; then
    . "$site"
fi

end=$(date -d "$(squeue --noheader --job "$SLURM_JOB_ID" --format %e)" +%s)
minutes=$(((end - $(date +%s)) / 60 - ${HPCBACKMAP_MARGIN_MINUTES:-5}))

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

code=0
mpirun -n "$SLURM_NTASKS" hpcbackmap backmap "$@" --time-limit="$minutes" || code=$?

restarts=${SLURM_RESTART_COUNT:-0}
if [ "$code" -eq 75 ] && [ "$restarts" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
elif [ "$code" -eq 75 ]; then
    echo "stopped after $restarts restarts; submit again to continue" >&2
fi
exit "$code"
