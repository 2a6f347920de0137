"""Orchestration: the Prefect flow over the DVC graph, isolated workspaces for its profiles, preflight checks."""
