"""Every setting: its type, its range, how it is read and how it is refused."""
