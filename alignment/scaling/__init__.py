"""How to spend compute (paper 3): the published laws, a plan from a budget, sweeps, fits, and predictions that are scored.

laws -> shapes -> plan           answer at once, without torch
sweep -> table -> isoflop, rates -> fit -> predict        a user's own exponents, with intervals
"""
