"""Measurements of what the README and the docs claim."""
