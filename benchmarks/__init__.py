"""Measures how much faster the package is, and how much less memory it needs, than plain code."""
