#!/usr/bin/env bash
#SBATCH --job-name=hpcbackmap-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train one stage of a campaign on its own nodes, one task per GPU (or per CPU rank):
#
#     sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 slurm/train_stage.sh CAMPAIGN STAGE [KEY=VALUE]...
#
# Five minutes before the walltime (--signal) the ranks write a checkpoint and exit with 75; the job then
# requeues itself and continues. What your site needs: site.sh beside this file.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch [OPTIONS] train_stage.sh CAMPAIGN STAGE [KEY=VALUE]..." >&2
    exit 2
fi

# sbatch runs a copy of this file; the job's record knows where the original is.
here=$(dirname "${BASH_SOURCE[0]}")
if [ ! -r "$here/job.sh" ]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(/.*\)/train_stage\.sh\( .*\)*$|\1|p')
fi
. "$here/job.sh"

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

campaign=$1
stage=$2
shift 2
# --wait: if one rank dies, the others, who wait for it, follow.
start "${srun[@]}" --wait=60 "${hpcbackmap[@]}" train "$campaign" --stage "$stage" "$@"
collect
finish "$code"
