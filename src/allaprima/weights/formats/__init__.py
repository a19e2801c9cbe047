"""File formats of named tensors: safetensors, GGUF, and shards with an index."""
