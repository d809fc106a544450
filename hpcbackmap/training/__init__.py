"""Trainer, ranks, checkpoints; the only room that imports deepspeed."""
