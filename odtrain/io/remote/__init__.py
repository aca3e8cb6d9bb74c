"""What lies in object stores and on the web, as files."""
