"""The three parts of a model, what they declare, and how they are composed."""
