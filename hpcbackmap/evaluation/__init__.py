"""Metrics, baselines, report."""
