"""LegoRay composes content-based recommenders out of parts, trains and searches them on Ray."""

__version__ = "0.1.0"
