"""Is this answer right? Shared by evaluation, preferences and rewards; knows nothing of models.

`problem` is what is asked, `answers` reads an answer out of text, `sandbox` runs model-written code (`cell` is what
runs inside, `locks` what binds it, `wire` what it may say), `judge` puts them together.
"""
