"""What callers of the registry's API import."""
