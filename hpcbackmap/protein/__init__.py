"""Residues, topology, internal coordinates."""
