"""Which results of equal configurations are equal."""

TRAINING = 1
"""Raise it with a change after which the same configuration on the same data gives other numbers.

Results of other numbers are then not taken for a training's own (`legoray.zoo.earlier`).
"""
