"""Pure arithmetic: numbers in, numbers with intervals out.

Imports only critics, core and runtime.

    bootstrap           percentile intervals
    bradley_terry       ratings from comparisons
    interrater          Cohen's kappa and Krippendorff's alpha
    length_control      a score at equal length
    paired_differences  two arms on the same inputs
    preference_leakage  whether a judge favours texts of its own model
    text_metrics        length, copying and variety of texts
    tie_rule            when a comparison is a win, a tie or a loss
    win_tie_rate        win-tie rate and score
"""
