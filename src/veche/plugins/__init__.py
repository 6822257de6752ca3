"""Find engines, operations, roles, importers and commands by name."""
