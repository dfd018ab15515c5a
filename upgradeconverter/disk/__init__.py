"""The only layer with effects on a file system."""
