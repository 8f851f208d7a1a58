from tests.export.kept import kept_graphs

__all__ = ["kept_graphs"]
