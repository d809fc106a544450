"""Beads to finer particles of one protein."""
