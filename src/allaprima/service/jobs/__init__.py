"""Jobs from admission to their end."""
