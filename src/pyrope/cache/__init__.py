"""Results kept to be given again: the store of entries, its budgets, and what proves them right."""
