"""HTTP code that is independent of the use cases."""
