"""What every process needs and what changes no result.

Imports no other package.

    clock        seconds of this process, by part
    errors       the errors a user can meet, with their exit codes
    paths        the checkout and its state folder
    stage        arguments, lock, counts and clean endings of a stage
    stage_times  the duration of each stage's last run
"""
