"""Alembic's script location: `env.py` and one file per revision of the schema."""

#: The newest revision in `versions`.
HEAD = "0006_workers"

#: Alembic's script location.
LOCATION = "allaprima.store:migrations"
