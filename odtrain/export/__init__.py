"""Files written from a trained network, proven and timed."""
