"""Alembic's home: `env.py` and one file per revision of the schema."""
