"""Behavior operators: history -> user state. The table is in `legoray.model.registry`."""
