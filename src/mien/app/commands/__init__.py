"""The commands: each reads what was typed, calls the studio once, and shows the result."""
