"""A localizer of real things: class tokens are the rows of classifiers that know real pictures and real sounds."""
