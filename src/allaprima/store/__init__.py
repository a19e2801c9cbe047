"""Persistent state: the database and the object store. All calls are asynchronous; the package does not use torch."""
