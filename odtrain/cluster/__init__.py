"""Ray, where a cluster does the work: joined, shared out, and left without a trace."""
