"""The pipeline: its steps, the fingerprints of their code, and the plan of a run."""
