"""Watch a council from inside the model, while it speaks."""
