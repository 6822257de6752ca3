"""Names of the files that surgery leaves in a folder it made."""

PLAN_NAME = "veche_plan.json"
"""The plan that a folder was built from, kept beside the weights."""
HASHES_NAME = "veche_hashes.json"
"""SHA-256 of the source's files and of the folder's own."""
