"""Measurements of methods on folders of faces."""
