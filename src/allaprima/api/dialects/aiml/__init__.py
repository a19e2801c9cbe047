"""The hosted platform's wire format, which OpenAI's clients can read too."""
