"""Look at hidden states, routing and entropy of what a model reads, and learn from them."""
