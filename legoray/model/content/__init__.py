"""Content operators: item -> vector. One file each; the table is in `legoray.model.registry`."""
