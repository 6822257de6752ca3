"""Several voices, one answer."""
