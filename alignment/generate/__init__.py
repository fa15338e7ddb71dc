"""The sampling and scoring engine: `engine.load(...)` gives an Engine; `generate` writes answers, `score` weighs them.

`engine` is what others call; `completion` says what goes in and comes out, `words` turns text into ids. `prefixes`
finds what prompts share, `decode` is the loop that writes answers (`slots` where rows lie, `sampling` the choice of a
token, `lookup` guesses at the next ones, `stopping` the end), `scoring` weighs given text. `forward` is what they ask of
a model: `llama` answers for Llama models (`linear`: packed weights), `library` for every other transformers class.
`weights` opens a model from a run directory, a model folder or the hub. `vllm` answers the same questions with vLLM.
"""
