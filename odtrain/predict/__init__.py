"""A model looks at pictures and videos; what it finds is drawn and noted."""
