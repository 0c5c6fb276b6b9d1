"""Measures caddysnake and its peers side by side. `README.md` is the map of the files."""
