"""veche: grow an open Mixture-of-Experts checkpoint, prove it, and let its voices deliberate."""

__version__ = "0.1.0"
