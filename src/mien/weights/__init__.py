"""Files of weights: safe readers, writers, the shipped networks."""
