"""Checkpoints and what is made of them."""
