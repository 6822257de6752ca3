"""Names of the files that surgery leaves in a folder it made."""

PLAN_NAME = "veche_plan.json"
"""The plan that a folder was built from, kept beside the weights."""
GROWTH_NAME = "growth.json"
"""Which layers, heads, units and experts are new."""
HEAL_NAME = "veche_heal.json"
"""What a folder was healed of, how, and what that gave back."""
HASHES_NAME = "veche_hashes.json"
"""SHA-256 of the source's files and of the folder's own."""
CARD_NAME = "README.md"
"""The model card."""
SOURCE_CARD_NAME = "README.source.md"
"""The source's model card, kept."""
WEIGHT_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".pkl", ".onnx", ".h5",
)  # fmt: skip
"""How files of weights end; all others are a model's companions."""
