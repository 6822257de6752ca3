"""Carve a dense model into a mixture of experts, without training."""
