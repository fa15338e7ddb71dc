"""The sampling and scoring engine: `engine.load(...)` gives an Engine; `generate` writes answers, `score` weighs them.

`engine` holds the loop; `completion` what goes in and comes out; `slots` the ragged cache it decodes from; `sampling`
the choice of the next token; `scoring` the log-probabilities of given text; `weights` opens a model from a run
directory, a model folder or the hub.
"""
