"""What survives a restart: the database and the object store. Asynchronous throughout; no tensors."""
