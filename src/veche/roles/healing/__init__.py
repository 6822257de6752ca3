"""Distil a changed model back towards the one that it was made from."""
