"""Beads to C-alpha of any protein."""
