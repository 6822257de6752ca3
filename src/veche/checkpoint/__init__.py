"""Model files on disk, read without torch."""
