"""What ``ray job submit`` runs: recipes and their YAML specs, no algorithms."""
