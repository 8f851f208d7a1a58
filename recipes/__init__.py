"""How the models in the package were made."""
