"""How commands read what is typed and show what is done: options, values, bars, errors."""
