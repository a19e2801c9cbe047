"""From files on disk to networks in memory: the catalog of known models, model folders, tokenizers."""
