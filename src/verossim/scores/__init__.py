"""Scores of what a model says of given records: its likelihood, its classes, how it tells unusual ones, whether it sums to one.

These look at numbers that a model gave, where the measures of `metrics` compare records that were made with real ones. They
know tensors and arrays, never a model.
"""
