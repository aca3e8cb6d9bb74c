"""Published weights: what there is, fetched, given to a network, proven."""
