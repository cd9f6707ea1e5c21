"""Images and labels: reading, fetching, checking, splitting."""
