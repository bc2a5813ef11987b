"""What things cost. Each measurement returns rows of figures; `table` prints them.

parts      phases of training, encoders, the loader    steps      whole training steps of several runs
attention, stylegan3                                   forms computed here, against plain or published ones
startup    how long commands take to answer            scores     every metric, networks aside
timing, networks, table                                what these share
"""
