"""Web pages: the playground and the API reference."""
