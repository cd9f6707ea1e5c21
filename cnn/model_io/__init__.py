"""Saved models: written, checked before they are opened, loaded."""
