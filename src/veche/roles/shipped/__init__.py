"""The roles that veche brings: one YAML file each, found through the entry points `veche.roles`."""

from importlib import resources

_HERE = resources.files(__name__)

PROPOSER = _HERE / "proposer.yaml"
LOGICIAN = _HERE / "logician.yaml"
OBJECTOR = _HERE / "objector.yaml"
SYNTHESISER = _HERE / "synthesiser.yaml"
RECURSIA = _HERE / "recursia.yaml"
Q_INTENT = _HERE / "q-intent.yaml"
