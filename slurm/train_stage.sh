#!/usr/bin/env bash
#SBATCH --job-name=hpcbackmap-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train one stage of a campaign on its own allocation, one task per GPU (or per CPU rank):
#
#     sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 slurm/train_stage.sh CAMPAIGN STAGE [KEY=VALUE]...
#
# Five minutes before the walltime the ranks write a checkpoint and exit with 75; the job then requeues
# itself and continues, at most 20 times. Modules and environments: site.sh beside this file.
# MASTER_ADDR, if set, says where the ranks meet (127.0.0.1 where several Slurm nodes share one host).
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch [OPTIONS] train_stage.sh CAMPAIGN STAGE [KEY=VALUE]..." >&2
    exit 2
fi
campaign=$1
stage=$2
shift 2

# Slurm runs a copy of this file; the job's record knows where the original is.
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')
site=$(dirname "$script")/site.sh
if [ -r "$site" ]; then
    . "$site"
fi

if [ -z "${MASTER_ADDR:-}" ]; then
    mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    export MASTER_ADDR=${hosts[0]}
fi
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# --wait: if one rank dies, the others, who wait for it, follow.
srun --wait=60 hpcbackmap train "$campaign" --stage "$stage" "$@" &
step=$!
warned=
trap 'warned=yes; kill -USR1 "$step"' USR1

code=0
wait "$step" || code=$?
while [ -n "$warned" ]; do # a trap ends `wait` early
    warned=
    code=0
    wait "$step" || code=$?
done

restarts=${SLURM_RESTART_COUNT:-0}
if [ "$code" -eq 75 ] && [ "$restarts" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
elif [ "$code" -eq 75 ]; then
    echo "stopped after $restarts restarts; submit again to continue" >&2
fi
exit "$code"
