"""Saved models: write them, check them before Keras opens them, load them."""
