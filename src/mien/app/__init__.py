"""The studio and its doors."""
