"""The steps, each declared once; their code's fingerprints; what a run would do."""
