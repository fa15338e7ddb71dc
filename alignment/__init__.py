"""The road from raw text to an aligned model.

Read in this order: `recipe` (what a stage may be told), `run` (what a stage leaves behind), `experiment` (how a folder
of recipes becomes a chain of runs), then the stages along the road: `corpus`, `tokenizer`, `models`, `pretrain`,
`posttrain`. `chat` holds the one truth of what a model sees; `verify` says whether an answer is right; `generate`
samples and scores. The package `eval` stands beside and reads what the stages leave.
"""
