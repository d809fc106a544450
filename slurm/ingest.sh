#!/usr/bin/env bash
#SBATCH --job-name=hpcbackmap-ingest
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --time=02:00:00
#SBATCH --open-mode=append
#
# Ingest a campaign's trajectories on one Slurm allocation:
#
#     sbatch --nodes=2 --ntasks-per-node=16 slurm/ingest.sh CAMPAIGN [KEY=VALUE]...
#
# Submit from an environment in which `hpcbackmap` and `mpirun` are found. A job that ends early leaves no
# store; submit it again.
set -euo pipefail

# Slurm runs a copy of this file; the job's record knows where the original is.
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')
site=$(dirname "$script")/site.sh
if [ -r "$site" ]; then
    . "$site"
fi

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

exec mpirun -n "$SLURM_NTASKS" hpcbackmap ingest "$@"
