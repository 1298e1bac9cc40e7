"""Captions as words, as the evaluation of the COCO captions counts them."""

from __future__ import annotations

import re

_LETTER, _WORD = r"[^\W\d_]", r"[^\W_]"  # a letter; a letter or a digit
_END = r"(?![\w-])"
_ABBREVIATIONS = (  # those that keep their full stop, even at the end of a sentence
    r"a\.d|a\.m|adm|al|ala|alex|apr|ariz|assn|asst|atty|aug|ave|b\.c|bldg|blvd|brig|bros|ca|calif|capt|cf|cie|"
    r"cmdr|co|col|colo|conn|corp|cos|cpl|d\.c|dec|dept|dr|e\.g|elec|esq|est|etc|ext|feb|fla|fri|ft|ga|gen|gov|"
    r"hon|i\.e|inc|ind|intl|jan|jos|jr|jul|jun|kan|lt|ltd|maj|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mr|mrs|ms|"
    r"mt|natl|neb|nev|nov|oct|okla|p\.m|penn|ph\.d|pres|prof|pvt|rd|rep|reps|rev|sen|sens|sep|sept|sgt|sq|sr|st|"
    r"supt|tel|tenn|thu|tue|u\.k|u\.s|univ|va|vs|vt|wed|wis|wm|wyo"
)

_TOKEN = re.compile(
    rf"""
      </?[a-z][^<>]*>                                          # a tag
    | (?:https?://|www\.)[^\s"<>|()]*[^\s"<>|().,?!;:'\]]
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                             # an address
    | [@\#]{_LETTER}\w*
    | (?:(?:gon|wan)(?=na{_END})|got(?=ta{_END})|(?:gim|lem)(?=me{_END})|can(?=not{_END})|'t(?=(?:is|was){_END}))
    | (?:{_ABBREVIATIONS}|no(?=\.\s*\d))\.(?!{_WORD})
    | (?:{_LETTER}\.){{2,}}(?!{_WORD}) | {_LETTER}\.(?!{_WORD}|\s*$)         # an acronym, an initial
    | (?:{_WORD}+-)*{_WORD}+?(?=n't(?!{_WORD})) | n't(?!{_WORD})             # do n't
    | (?:o'clock|c'mon|ol')(?!{_WORD}) | [odl]'{_LETTER}+ | {_LETTER}+[aeiouy]'[aeiou]{_LETTER}*  # o'neil, ma'am
    | '(?:n'|(?:s|m|d|re|ve|ll|em|til|cause|\d0s)(?!{_WORD}))           # dog 's, slip 'n' slide, '90s
    | \d+(?:/\d+){{1,2}}(?!{_WORD}) | [+-]?\d*(?:[.,:]\d+)+(?:-{_WORD}+)* | [+-]\d+(?!{_WORD})
    | (?-i:[A-Z]+(?:&[A-Z]+)+)(?!{_WORD})                      # AT&T
    | {_WORD}+(?:[-_/.!?]{_WORD}+)*                            # a word, black-and-white, and/or
    | \.+ | [!?]+ | -{{5,}} | -{{1,4}} | \*+ | _+ | ''
    | [^\s\x00-\x1f\x7f-\x9f\U00010000-\U0010ffff]
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ALIKE = str.maketrans(
    {"’": "'", "‘": "`", "“": '"', "”": '"', "—": "--", "–": "--", "…": "...", "\xad": "", "\xa0": " "}
)
_NAMES = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "€": "$", "£": "#"}
_REMOVED = re.compile(r"""['"`.!?,:;]|''|\.\.+|-{1,4}""")


def caption_tokens(text: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation.

    Words are split as in the Penn Treebank: ``isn't`` is two, ``dog's`` is two, ``black-and-white`` is one. Brackets
    become words (``-lrb-``) and several exclamation marks are one, which is how the evaluation of COCO captions has
    always counted them.

    Source: the rules are read off the output of the Stanford tokenizer (CoreNLP 3.4.1, ``-lowerCase``) that
    coco-caption calls, less its list of punctuation. All 40,460 Flickr8k captions come out the same, and all but one
    of 31,014 English Multi30k captions; in free text some rare forms (smileys, units, subscripts) do not.

    >>> caption_tokens("A man's black-and-white dog isn't here, is it?")
    ['a', 'man', "'s", 'black-and-white', 'dog', 'is', "n't", 'here', 'is', 'it']
    """
    text = text.translate(_ALIKE).replace("&amp;", "&").replace("&quot;", '"')
    return [_NAMES.get(token, token).lower() for token in _TOKEN.findall(text) if not _REMOVED.fullmatch(token)]
