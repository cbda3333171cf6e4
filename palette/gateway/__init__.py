"""Tenants and what they ask for: who is known, what is kept of it, and what answers."""
