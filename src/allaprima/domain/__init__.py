"""The domain model: data types and their rules, without I/O, HTTP, SQL or tensors."""
