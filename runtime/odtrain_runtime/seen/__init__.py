"""What a served model sees, kept for later."""
