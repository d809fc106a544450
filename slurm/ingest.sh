#!/usr/bin/env bash
#SBATCH --job-name=hpcbackmap-ingest
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#
# Ingest a campaign's trajectories on one Slurm allocation:
#
#     sbatch --nodes=2 --ntasks-per-node=16 slurm/ingest.sh CAMPAIGN [KEY=VALUE]...
#
# Stopped before its walltime (--signal=B:USR1@300) it keeps what is written, exits with 75, requeues itself and
# continues. What your site needs: site.sh beside this file.
set -euo pipefail

# sbatch runs a copy of this file; the job's record knows where the original is.
here=$(dirname "${BASH_SOURCE[0]}")
if [ ! -r "$here/job.sh" ]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(/.*\)/ingest\.sh\( .*\)*$|\1|p')
fi
. "$here/job.sh"

start "${mpirun[@]}" "${hpcbackmap[@]}" ingest "$@"
collect
finish "$code"
