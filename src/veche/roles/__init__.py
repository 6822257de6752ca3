"""Teach a voice: its definition, data, training, observer and evaluation."""
