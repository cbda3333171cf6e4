"""Strangers: small chat models drawn from a seed, on which nothing is tuned."""
