"""What runs a recipe: read it, merge its overrides, run it, and write down what came out.

`recipe` reads YAML, `merge` and `overrides` change configurations, `training` and `job` run one thing each, `results`
says what a run hands back, `report` and `plots` write it down. None of them knows what an edit is.
"""
