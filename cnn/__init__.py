"""The library: plain Python that knows nothing of Prefect."""
