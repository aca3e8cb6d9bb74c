"""What the data check looks for, a module for each."""
