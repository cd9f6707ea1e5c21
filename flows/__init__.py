"""The flows, which compose the tasks, and the command that starts them."""
