"""The command line: parse, call, print. Each command imports what is heavy inside its function."""
