"""HTML pages of one file each, which need nothing but a browser, and no network."""
