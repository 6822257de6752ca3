"""Carry a BuildPlan out on weights, and prove what it did."""
