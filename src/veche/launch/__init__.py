"""Say where a model will run: the card, the memory, the speed, and the command that starts it."""
