"""One bead per residue to C-alpha."""
