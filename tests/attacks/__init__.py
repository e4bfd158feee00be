"""Attacks, each performed for real on the embedded AWS: what stops it, or how it shows.

One scene is shared by all of them (`scene.py`): versions that are deployed, killed, waiting and rejected, predictions that are sealed, and
bundles. An attack that changes something of the scene puts it back. Who attacks as an administrator does so as the account's root.
"""
