"""The web page and the plain API."""
