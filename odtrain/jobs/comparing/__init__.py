"""Which of two models is better, and a page that shows it."""
