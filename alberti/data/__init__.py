"""Data sets: readers, manifests, rendered streets."""
