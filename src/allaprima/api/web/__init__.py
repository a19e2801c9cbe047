"""Pages in a browser: the playground and the API reference."""
