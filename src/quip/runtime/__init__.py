"""Runtime: what every process needs and what changes no result.

Imports no other package.

    clock        the seconds of this process, by part
    errors       errors that a user can correct, with their exit codes
    paths        the checkout and its state folder
    stage        stage harness: arguments, lock, exit codes, printed counts
    stage_times  the duration of each stage's last run, by part
"""
