"""Language models: where they come from, how they are split, and their stored hidden states."""
