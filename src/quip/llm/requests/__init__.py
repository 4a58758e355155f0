"""What is asked of a large model, and what of its reply is believed.

Imports only runtime.

    chat       one chat call and its reply
    prompts    prompts as text files
    protocols  other calls than plain chat
"""
