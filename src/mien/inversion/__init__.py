"""From an aligned face to latent codes."""
