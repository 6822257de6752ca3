"""Train adapters: settings, memory plan, trainer, checkpoints, scale-out."""
