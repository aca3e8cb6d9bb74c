"""What people labelled, whatever the tool: boxes, classes, label maps."""
