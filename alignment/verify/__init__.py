"""Is this answer right? Shared by evaluation, preferences and rewards; knows nothing of models.

`problem` is what is asked, `answers` reads an answer out of text, `sandbox` runs model-written code (`cell` is the
script inside), `judge` puts them together.
"""
