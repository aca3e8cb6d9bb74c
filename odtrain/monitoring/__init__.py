"""After deployment: whether what a served model sees is still what it was judged on."""
