"""What is drawn of results: labelled figures, curves, pages."""
