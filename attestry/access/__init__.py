"""Who may do what: roles, the scopes in which they count, and the Cedar policies that decide."""
