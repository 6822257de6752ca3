"""Tell what is being asked: intents, and whether a question is of one of them at all."""
