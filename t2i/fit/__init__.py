"""Frozen networks of one's own, fitted to captioned shards: a CLIP (clip), a VGG (vgg).

options says what there is to choose, and retrieval how well a CLIP finds pictures and captions it has not seen.
"""
