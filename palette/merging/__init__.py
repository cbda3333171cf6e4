"""Merging adapters on ΔW: a paper's method is a row of one table and a pure function."""
