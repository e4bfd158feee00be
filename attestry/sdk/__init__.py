"""What data scientists import: development runs, and models that are checked before they are used. See docs/sdk.md."""
