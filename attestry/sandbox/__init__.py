"""Runs a script under the script-mode contract; knows nothing of the registry; standard library only."""
