"""Requests to a large model, and the checks of its replies.

Imports only runtime.

    chat       one chat call and its reply
    prompts    prompts as text files
    protocols  routes of other calls than plain chat
"""
