"""C-alpha to heavy atoms."""
