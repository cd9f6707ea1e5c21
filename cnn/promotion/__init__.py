"""The gate that decides which model is promoted, and the registry of promoted models."""
