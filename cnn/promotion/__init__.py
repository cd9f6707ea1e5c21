"""Which model is in force: the gate, its checks, and the registry of promoted models."""
