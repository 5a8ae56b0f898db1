"""The report of a data set: one HTML file with figures, plots and a gallery, that needs nothing beside it."""
