"""Copies a data folder: its SQLite database into PostgreSQL, and its images into a bucket."""
