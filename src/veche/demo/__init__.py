"""The whole chain on a small real model, stage by stage."""
