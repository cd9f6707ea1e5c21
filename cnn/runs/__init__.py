"""Run folders, run records and the index of runs; folders of searches."""
