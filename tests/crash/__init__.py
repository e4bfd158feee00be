"""Crash points: every call to AWS fails once before and once after it has taken effect."""
