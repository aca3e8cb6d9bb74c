"""Files: read, written, fetched and unpacked, whole or not at all."""
