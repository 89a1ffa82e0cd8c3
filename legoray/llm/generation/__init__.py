"""Attributes written by a language model: prompts, generators, and what is kept of them."""
