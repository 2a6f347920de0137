"""A rehearsal of the paper profile: every stage on data in the native layouts and on models of the real classes and sizes,
with random weights and a few steps. `python -m pipeline.rehearsal`; docs/paper.md.
"""
