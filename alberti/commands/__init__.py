"""The commands of `alberti`, one module each."""
