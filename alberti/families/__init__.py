"""Families of diffusion models, one adapter each behind one interface; this module stays light.

``affine.py`` and ``codecs.py``: pictures to latents and back. ``steps.py``: x0 at a step of any diffusers scheduler.
``adapters.py``: which pipelines are known, and what differs between them. ``denoisers.py`` and ``model.py``: a pipeline as a
base to fine-tune. ``drawing.py``: loading a pipeline, and what its call takes for a depth map.
"""
