"""Object stores, one file per backend."""
