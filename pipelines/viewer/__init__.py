"""The viewer: a local web page over one data set, to search it, see each image's whole story, and mark statements."""
