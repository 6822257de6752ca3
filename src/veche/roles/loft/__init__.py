"""LoFT: low-rank adaptation that behaves like full fine-tuning (arXiv 2505.21289)."""
