"""Training of every network that mien ships."""
