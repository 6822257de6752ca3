"""Decide what a model is to become, and say what that costs."""
