"""All settings: their types and ranges, how they are parsed, and the errors they raise."""
