# What your site needs, sourced by all batch scripts on the first node of a job before they start anything.
# A copy beside a campaign file is used for that campaign instead. This is bash; all of it is optional.

# Software.
# module load gcc cuda openmpi
# source ~/venvs/hpcbackmap/bin/activate
environment=$here/../.venv # of a checkout in which `make` was run
if [ -r "$environment/bin/activate" ]; then
    . "$environment/bin/activate"
fi

# The command, for example inside a container (hpcbackmap.def beside this file makes one).
# hpcbackmap=(apptainer exec --nv /path/to/hpcbackmap.sif hpcbackmap)

# How MPI programs start (ingest, backmap, evaluate).
# mpirun=(srun --mpi=pmix)

# How the ranks of a training start.
# srun=(srun --cpu-bind=cores)

# The network of the ranks, and where they meet; default: the first node, a port made of the job's number.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
# export MASTER_ADDR=...

# How often a job may requeue itself, and how long before the walltime backmapping begins no more work.
# max_restarts=20
# margin_minutes=5
