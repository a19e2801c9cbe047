"""Small checkpoints in the shapes of public files, and what the loader must make of each."""
