"""Click predictors: user x item -> score. The table is in `legoray.model.registry`."""
