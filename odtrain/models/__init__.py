"""The networks, and what turns their outputs into detections."""
