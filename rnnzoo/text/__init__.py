"""Tokenizers, label maps and tag schemes: text in, numbers out, and JSON for what they remember."""
