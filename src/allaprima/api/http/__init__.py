"""HTTP tools that know no use case."""
