"""The nouns of allaprima and their rules: no I/O, no HTTP, no SQL, no tensors."""
