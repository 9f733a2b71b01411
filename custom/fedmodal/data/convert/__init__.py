"""Bring public data sets and plain image and label pairs into a site's data set."""
