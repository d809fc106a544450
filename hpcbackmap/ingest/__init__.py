"""From trajectories to a frame store."""
