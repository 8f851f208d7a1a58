"""Tools of the pages."""
