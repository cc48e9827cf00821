"""Photos and the faces in them: detection, alignment, paste-back."""
