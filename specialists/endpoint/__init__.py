"""Texts by a language or multimodal model behind an OpenAI-compatible HTTP endpoint.

FLD-5B's detailed and more detailed texts come from a large model that is prompted with what is already
said of an image, for a small subset of the images (arXiv 2311.06242, section 4.1). `ChatTexts` does that
with any server that speaks the chat-completions protocol. docs/endpoint.md tells the whole of it.
"""

from specialists.endpoint.cache import spent
from specialists.endpoint.specialist import ChatTexts
from specialists.endpoint.usage import Usage

VERSION = 1
"""Part of the fingerprint of what this specialist says: raise it when its output changes."""

__all__ = ["VERSION", "ChatTexts", "Usage", "spent"]
