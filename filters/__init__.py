"""Filters: each says which annotations to keep; its name in the recipe is the reason it gives."""
