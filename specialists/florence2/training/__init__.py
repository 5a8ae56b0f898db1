"""Training a Florence-2: what the trainings on drawn scenes and on a data set share, and the latter's parts."""
