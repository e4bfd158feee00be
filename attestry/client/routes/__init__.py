"""The routes of the API by what they are about, as `attestry.api` groups its operations."""
