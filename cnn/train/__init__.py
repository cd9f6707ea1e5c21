"""The network, its recipes and its training."""
