"""How good detections are: COCO's numbers, intervals, kinds of mistakes."""
