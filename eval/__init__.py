"""Evaluation of finished runs and models; reads run directories, never imports a stage.

Reading order: statistics (what a number can say), task (item, mark), data (rows of published files), tasks/ (one file per
benchmark shape), harness (answers saved before they are marked), journal (answers on disk), ranks (several processes),
samples (an item with its answers and marks), summary (what they amount to), evaluate (the stage), report/ (JSON, Markdown,
one page of HTML); compare, contamination, invariance, items and text stand beside. `eval` hides a
builtin, so always `from eval.task import ...`.
"""
