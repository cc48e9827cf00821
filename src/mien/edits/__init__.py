"""Changes of latent codes and of pictures."""
