"""Measure a grown model against its source."""
