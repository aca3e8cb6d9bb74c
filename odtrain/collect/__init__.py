"""Pictures from anywhere, as img1.jpg, img2.jpg, ..."""
