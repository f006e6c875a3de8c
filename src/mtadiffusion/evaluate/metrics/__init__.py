"""Metrics of filled holes: adapters of published ones and our own for structure, style and seams."""
