"""Where long work is done part by part: in this process, in some processes, or on a Ray cluster.

Nothing here knows what a part is: annotation's are shards, evaluation's are handfuls of items.
"""
