"""Measure a role, always beside baselines, always with intervals."""
