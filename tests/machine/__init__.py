"""The registry as a machine: every command by every kind of principal, and what must hold after each."""
