"""The CDK app: stacks, one file each."""
