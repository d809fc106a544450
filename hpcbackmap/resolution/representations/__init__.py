"""How the particles of an input sit on residues: one registry, told from names and geometry."""
