"""Faces with StyleGAN: find, align, invert, edit, paste back."""

__version__ = "0.1.0"
