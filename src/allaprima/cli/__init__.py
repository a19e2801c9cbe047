"""The command line. Each command imports heavy modules inside its function, so that `--help` is fast."""
