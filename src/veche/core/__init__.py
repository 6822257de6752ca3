"""Words that every part of veche shares; the standard library and platformdirs only."""
