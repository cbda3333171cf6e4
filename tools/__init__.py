"""What builds the models and judges that Palette ships; nothing in ``palette`` imports it."""
