"""Wire formats, one module or package each."""
