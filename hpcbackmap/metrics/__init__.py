"""Measures of arrays; knows neither models nor files."""
