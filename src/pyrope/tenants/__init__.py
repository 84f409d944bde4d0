"""Tenants: who they are, what they may do, and what it costs them."""
