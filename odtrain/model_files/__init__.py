"""What a .tflite tells of itself, and from which score on a class is shown."""
