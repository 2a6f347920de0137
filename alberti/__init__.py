"""Linear perspective for latent diffusion models: losses, guidance, geometry and evaluation."""
