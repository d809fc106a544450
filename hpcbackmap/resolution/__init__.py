"""Mappings and ladders."""
