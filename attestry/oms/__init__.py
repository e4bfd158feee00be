"""The OpenSSF Model Signing (OMS) bundle of a version; imported by the one function that signs it, because its library is large."""
