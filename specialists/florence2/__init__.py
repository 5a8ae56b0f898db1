"""Florence-2 as a specialist: every task of the released checkpoints.

Importing this package loads no torch; `Florence2` does when it is built.
"""

from specialists.florence2.specialist import Florence2

VERSION = 3
"""Part of the fingerprint of what this specialist says: raise it when its output changes."""

__all__ = ["VERSION", "Florence2"]
