"""Figures: each takes tables and arrays and returns a matplotlib Figure."""
