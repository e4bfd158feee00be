"""The offline verifier: what anybody installs who trusts neither the registry nor its makers' servers.

It is part of `attestry`, and a distribution of its own, `attestry-verifier`, that holds the same modules and nothing of AWS.
"""
