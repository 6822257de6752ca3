"""The embedded engine: torch and transformers, with our own decode loop."""
