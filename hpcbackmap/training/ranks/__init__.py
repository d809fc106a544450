"""Ranks: who they are, how they meet, one training at a time."""
