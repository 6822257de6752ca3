"""Grow a checkpoint that lies in a remote folder, or into one: staged here, by fsspec."""
