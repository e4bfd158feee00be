"""Reads untrusted data sets and predictions and computes metrics; runs in a function of its own."""
