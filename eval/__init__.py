"""Evaluation of finished runs and models; reads run directories, never imports a stage.

Reading order: statistics (what a number can say), task (item, mark, report), tasks/ (one file per benchmark shape),
evaluate (answers saved before they are marked), report/ (JSON, Markdown, one page of HTML). `eval` hides a builtin,
so always `from eval.task import ...`.
"""
