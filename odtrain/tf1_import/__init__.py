"""The TensorFlow 1 Object Detection API's files, as settings of odtrain."""
