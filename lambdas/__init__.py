"""The Lambda functions: parse the event, call one use case, shape the answer."""
