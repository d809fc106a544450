# What the batch scripts of this folder share; they source it with their own arguments.
#
# start COMMAND...   run in the background
# collect            wait for all that was started; sets $code
# finish CODE        end the job, or send it back into the queue where it was stopped (75)
#
# A script whose work does not continue where it stopped sets starts_over=yes first: walltime over is its end.
#
# SIGUSR1 (Slurm's warning before the walltime) and SIGTERM reach every task as SIGUSR1: the ranks agree on a
# step, write a checkpoint and end with 75.

steps=()
asked=
trap 'asked=yes; kill -USR1 "${steps[@]}" 2>/dev/null || :' USR1 TERM

# What site.sh may change.
hpcbackmap=(hpcbackmap)
mpirun=(mpirun -n "${SLURM_NTASKS:-1}")
srun=(srun)
max_restarts=20
margin_minutes=5

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
for site in "$(dirname "${1:-}")/site.sh" "$here/site.sh"; do
    if [ -r "$site" ]; then
        set +eu # what sites bring is seldom written for it
        . "$site"
        set -eu
        break
    fi
done

job=${SLURM_HET_JOB_ID:-$SLURM_JOB_ID}

say() {
    echo "hpcbackmap: job $job: $*" >&2
}

start() {
    if [ -n "$asked" ]; then
        finish 75
    fi
    "$@" &
    steps+=($!)
}

# An error counts more than a stop, a stop more than success.
collect() {
    local one
    code=0
    for step in "${steps[@]}"; do
        while :; do # a signal ends `wait` early
            one=0
            wait "$step" || one=$?
            kill -0 "$step" 2>/dev/null || break
        done
        # Asked before it could listen: nothing is lost, it is stopped all the same.
        if [ -n "$asked" ] && { [ "$one" -eq 138 ] || [ "$one" -eq 143 ]; }; then
            one=75
        fi
        if [ "$one" -ne 0 ] && { [ "$code" -eq 0 ] || [ "$code" -eq 75 ]; }; then
            code=$one
        fi
    done
    steps=()
}

finish() {
    local restarts=${SLURM_RESTART_COUNT:-0} record state reason
    if [ "$1" -eq 75 ]; then
        record=$(scontrol --oneliner show job "$job" | head -n 1)
        state=$(sed 's/.* JobState=\([A-Z_]*\).*/\1/' <<<"$record")
        reason=$(sed 's/.* Reason=\([A-Za-z_]*\).*/\1/' <<<"$record")
        # Slurm would requeue a cancelled job, too.
        if [ "$reason" = TimeLimit ] && [ -n "${starts_over:-}" ]; then
            say "walltime over; submit again with more time"
        elif [ "$state" != RUNNING ] && [ "$reason" != TimeLimit ]; then
            say "cancelled; submit again to continue"
        elif [ "$restarts" -ge "$max_restarts" ]; then
            say "stopped after $restarts restarts (max_restarts in site.sh); submit again to continue"
        elif scontrol requeue "$job"; then
            say "back into the queue, restart $((restarts + 1)) of at most $max_restarts"
            exit 75
        else
            say "stopped, and Slurm refuses to requeue it; submit again to continue"
        fi
    fi
    if [ "$1" -ne 0 ] && [ "$1" -ne 75 ] && ! nodes_answer && [ -z "$asked" ]; then
        say "a node does not answer: waiting for Slurm to miss it, too, and to requeue the job"
        local timeout
        timeout=$(scontrol show config | sed -n 's/^SlurmdTimeout *= \([0-9]*\).*/\1/p')
        sleep $((${timeout:-300} + 60)) &
        wait "$!" || exit "$1"
    fi
    say "ended with code $1"
    exit "$1"
}

nodes_answer() {
    timeout 60 srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
        --ntasks-per-node=1 true >/dev/null 2>&1
}

say "start ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST, $(date --iso-8601=seconds)"
