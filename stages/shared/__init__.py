"""What stages share: the schema of params.yaml, paths, the graph's instances, how a stage runs."""
