"""The campaign file: its keys and their limits."""
