"""Networks in whole numbers: other ways to one where the plain way loses too much, and why it does."""
