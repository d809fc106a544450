"""A campaign as Slurm jobs."""
