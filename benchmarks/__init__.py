"""What odtrain takes in time and memory, beside what it is to be compared with.

`python -m benchmarks` measures all of it and prints Markdown tables; `--help` tells the rest.
"""
