"""Exercises that we write ourselves, in English and Chinese, small enough for a tiny model to learn on a laptop.

Reading order: exercise (what an exercise is, where it may be used, how it is told), then one module per kind
(arithmetic, programming, choice, conversation), then write (the stage).
"""
