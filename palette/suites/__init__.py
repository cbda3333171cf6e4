"""Suites: what is measured of a backbone and an adapter beside the gate, one measure a line of YAML."""
