"""What the command does beside running a flow: gc, verify, doctor, promote, compare."""
