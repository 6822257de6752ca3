"""RECURSIA's report: constrained JSON about a piece of reasoning, and how sure it is."""
