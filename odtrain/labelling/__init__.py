"""New pictures with proposals, corrected by people, back into the data set."""
