"""Evaluation: benchmarks, the methods compared on them, metrics, and reports with every figure's origin.

Nothing here knows how a model is built: a method is something that fills holes, a metric something that looks
at results.
"""
