"""From label files and pictures to checked, split records."""
