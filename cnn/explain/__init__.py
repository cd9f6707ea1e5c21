"""What filters look at: receptive fields, filters, mined patches."""
