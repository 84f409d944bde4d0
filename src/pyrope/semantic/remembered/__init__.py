"""Remembered responses without storage, commands or loop: entries, their scopes, what they are."""
