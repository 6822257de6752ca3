"""See inside: which experts a voice's tokens were sent to."""
