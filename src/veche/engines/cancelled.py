"""How a forward pass ends that somebody has asked to stop."""


class CancelledError(Exception):
    """Somebody has asked the forward pass to stop; engines turn it into "cancelled" results."""
