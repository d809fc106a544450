#!/usr/bin/env bash
#SBATCH --job-name=hpcbackmap-train
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train several stages in one heterogeneous job, for sites that want one allocation: component i trains
# stage i. `hpcbackmap submit --het` writes such a job; by hand:
#
#     sbatch --nodes=2 --gpus-per-node=4 : --nodes=1 --gpus-per-node=1 slurm/train_together.sh CAMPAIGN STAGE,STAGE [KEY=VALUE]...
#
# Stop and restart as in train_stage.sh. A stage that fails does not end the others.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch [OPTIONS] : [OPTIONS] train_together.sh CAMPAIGN STAGE,STAGE... [KEY=VALUE]..." >&2
    exit 2
fi

# sbatch runs a copy of this file; the job's record knows where the original is.
here=$(dirname "${BASH_SOURCE[0]}")
if [ ! -r "$here/job.sh" ]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(/.*\)/train_together\.sh\( .*\)*$|\1|p' | head -n 1)
fi
. "$here/job.sh"

campaign=$1
IFS=, read -r -a stages <<<"$2"
shift 2
for group in "${!stages[@]}"; do
    cores=SLURM_CPUS_PER_TASK_HET_GROUP_$group
    export OMP_NUM_THREADS=${!cores:-1} SRUN_CPUS_PER_TASK=${!cores:-1}
    start "${srun[@]}" --het-group="$group" --wait=60 \
        "${hpcbackmap[@]}" train "$campaign" --stage "${stages[group]}" "$@"
done
collect
finish "$code"
