"""Predictions, counts and metrics."""
