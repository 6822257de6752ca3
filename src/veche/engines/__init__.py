"""Ask a model: every engine speaks the one protocol."""
