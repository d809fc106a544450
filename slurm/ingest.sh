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

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

exec mpirun -n "$SLURM_NTASKS" hpcbackmap ingest "$@"
