"""Specialists: each looks at images (and at what was already said of them) and says things."""
