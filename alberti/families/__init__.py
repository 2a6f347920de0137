"""Families of diffusion models, one adapter each behind one interface; this module stays light.

``steps.py``: x0 at a step of any diffusers scheduler. ``codecs.py``: pictures to latents and back. ``adapters.py``: which
pipelines are known, and what differs between them.
"""
