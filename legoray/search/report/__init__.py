"""The report of a sweep: one HTML file, made of its folder alone."""
