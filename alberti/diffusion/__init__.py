"""Latent diffusion models: their parts, constraints, training and sampling."""
