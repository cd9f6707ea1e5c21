"""Run folders, their records and their index; folders of searches."""
