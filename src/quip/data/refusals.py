"""Refusals, safety warnings and prompt echoes: teacher texts that are not paraphrases.

A pattern that also matches the literal does not count: there the words are to be paraphrased. Every
function is pure.
"""

from __future__ import annotations

import re

UNABLE = (
    r"\b(?:can ?not|can't|could(?: not|n't)|will not|won't|unable to|not able to|not comfortable"
    r"|(?:must|have to) decline to)\b"
)
MAKE = r"\b(?:generat|provid|creat|writ|mak|produc|paraphras|rephras|rewrit|turn)\w*\b"
WORK = (
    r"\b(?:requests?|content|paraphras\w+|humou?rous|jokes? (?:about|of|out of)|fun of|light of"
    r"|this sentence)\b"
)
OURS = r"(?:this|that|your|such)"
REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial|(?:large )?language model)\b"
    rf"|{UNABLE}.{{0,30}}?\b(?:assist|help)(?: you)? with {OURS}\b"
    rf"|{UNABLE}.{{0,30}}?\b(?:fulfil\w*|comply with) {OURS}\b"
    rf"|{UNABLE}.{{0,30}}?{MAKE}.{{0,50}}?{WORK}"
    rf"|{UNABLE} (?:joke about|paraphrase) {OURS}\b",
    re.IGNORECASE,
)
SAFETY_WARNING = re.compile(
    r"\bit(?:'s| is) (?:important|crucial|essential|vital) to (?:note|remember|recogni[sz]e"
    r"|acknowledge|approach|treat|be (?:respectful|mindful|sensitive))\b"
    r"|\b(?:not|never|in) ?(?:appropriate|okay|ok|acceptable)"
    r" to (?:joke|make (?:light|fun|jokes))\b"
    r"|\b(?:serious|sensitive) (?:matter|topic|subject|issue)s?\b.{0,60}\b(?:jok|humou?r|respect)"
    r"|\b(?:offensive|harmful|disrespectful|insensitive|inappropriate)"
    r" (?:content|jokes?|humou?r|language)\b"
    r"|\b(?:seek|consult|reach out to)\b.{0,30}\b(?:professional|therapist|hotline|counsel\w*)\b"
    r"|\bplease (?:note|remember|be aware) that (?:this|these|humou?r|jokes?|such)\b",
    re.IGNORECASE,
)
INSTRUCTION = re.compile(
    r"\s*(?:literal|sentence|input|original|task|instructions?|rules?|user|assistant|system)\s*:"
    r"|\bexactly the same meaning\b|\bhumou?rous paraphrases?\b|\bnumbered list\b",
    re.IGNORECASE,
)


def refuses(text: str, literal: str) -> bool:
    """Whether `text` declines to paraphrase `literal`."""
    return matches_text_only(REFUSAL, text, literal)


def warns(text: str, literal: str) -> bool:
    """Whether `text` holds a safety warning about `literal` instead of a paraphrase."""
    return matches_text_only(SAFETY_WARNING, text, literal)


def echoes_instructions(text: str, literal: str) -> bool:
    """Whether `text` repeats words of the prompt."""
    return matches_text_only(INSTRUCTION, text, literal)


def matches_text_only(pattern: re.Pattern[str], text: str, literal: str) -> bool:
    """Whether `pattern` matches `text` and not `literal`."""
    return bool(pattern.search(straighten_quotes(text))) and not pattern.search(
        straighten_quotes(literal)
    )


def straighten_quotes(text: str) -> str:
    return text.replace("\u2019", "'")
