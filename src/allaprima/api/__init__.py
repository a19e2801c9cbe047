"""The HTTP API: asynchronous routes, and the dialects that read requests and write responses."""
