"""The page on which somebody says of pairs whether they are good, with one key each."""
