"""Pictures and videos: found, decoded, compared, drawn on."""
