"""Subcommands that need no Prefect: gc, verify, doctor, promote and compare."""
