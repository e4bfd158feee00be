"""Evidence judged by programs that are not ours: each accepts what the registry made, and refuses what somebody changed."""
