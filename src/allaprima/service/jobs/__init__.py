"""The life of jobs, from admission to their end."""
