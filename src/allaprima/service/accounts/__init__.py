"""Accounts, keys, limits, prices and usage."""
