"""From a site's files to training slices."""
