"""What runs systems: stages, models, budgets, trials."""
