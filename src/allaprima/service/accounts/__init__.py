"""Accounts, API keys, rate limits, prices and usage."""
