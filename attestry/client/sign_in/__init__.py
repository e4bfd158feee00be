"""Signing in with the company's identity provider, in a browser, and what is kept of it on this machine."""
