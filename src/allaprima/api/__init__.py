"""HTTP, asynchronous, never a tensor: the dialects of the API over the use cases."""
