"""Words that turn a sentence round, and words that carry little, case-folded.

English mostly, with the commonest of its neighbours. A guard that does not know a language's words
still sees its digits, symbols, quotation marks and capitals; what it does not see it does not
refuse.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.vocabulary.stems import stem


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _stems(text: str) -> frozenset[str]:
    return frozenset(map(stem, text.split()))


NEGATIONS: Final = _words(
    "not no never none nobody nothing nowhere neither nor cannot without except excluding lacking "
    "hardly barely scarcely seldom "
    "nicht kein keine keinen keiner keinem nie niemals ohne weder "
    "pas jamais sans aucun aucune rien "
    "nunca jamás sin ningún ninguna nada tampoco "
    "não nem sem nenhum nenhuma "
    "non mai senza nessuno nessuna "
    "niet geen nooit zonder нет не никогда без нельзя nie bez nigdy"
)
"""Words that turn a sentence round. English contractions (*n't*) are known by their ending.

French *ne* comes with another one, and counts for nothing beside it.
"""

NEGATIONS_BEFORE_TO: Final = _words(
    "fail fails failed failing refuse refuses refused refusing unable"
)
"""Words that do if *to* comes after them: *unable to pay*, *fails to start*."""

CONTRACTED_NEGATIONS: Final = _words(
    "dont doesnt didnt cant couldnt wont wouldnt shouldnt isnt arent wasnt werent hasnt havent "
    "hadnt mustnt neednt"
)
"""As people type them, without the apostrophe."""

NEGATIONS_INSIDE: Final = ("不", "没", "沒", "無", "无", "非", "未", "ない", "ません", "않", "없")
"""Of scripts that put no space between words, and so are looked for as substrings."""

NEGATING_PREFIXES: Final = (
    "un",
    "dis",
    "in",
    "im",
    "il",
    "ir",
    "non",
    "de",
    "anti",
    "mis",
    "dés",
    "des",
)
"""*able* and *unable*, *connect* and *disconnect*: a word that is another with one of these."""

FUNCTION_WORDS: Final = _words(
    "a an the this that these those there here it its i you he she we they me him us them my your "
    "his her our their mine yours myself yourself oneself one's "
    "is are was were be been being am do does did done doing have has had having will would shall "
    "should can could may might must need ought "
    "to of in on at by for with from as about into onto than then upon over under between among "
    "through during per via within "
    "and or but if so because while although though whether either both also too very just only "
    "even ever still really actually please kindly "
    "what which who whom whose when where why how "
    "some any all each every such same other another more most much many few little lot lots "
    "what's how's who's where's that's it's there's i'm i've i'd i'll you're we're they're "
    "s t m re ve ll d get gets got getting "
    "der die das ein eine einen den dem des und oder ist sind wie was wer wo wann warum ich du wir "
    "le la les un une des du de et ou est sont comment que qui je il elle nous vous "
    "el los las una y o es son cómo qué quién yo tú "
    "os as um uma e é são como que quem eu "
    "lo gli uno è sono come che chi io het een en of zijn hoe wat ik"
)
"""Words that carry little of a question's subject."""

NEGATION_STEMS: Final = frozenset(map(stem, NEGATIONS))
PRONOUNS: Final = _stems(
    "i you we he she they it my your his her our their me us them myself yourself one someone "
    "somebody people person anyone"
)
AUXILIARIES: Final = _stems(
    "can could will would shall should may might must need do does did is are was were am be been "
    "being has have had get got"
)
PREPOSITIONS: Final = _stems(
    "in on at by for with from to of about into onto over under between among before after during "
    "through against within per via as than"
)
QUESTION_WORDS: Final = _stems("what which who whom whose when where why how")
DETERMINERS: Final = _stems(
    "a an the this that these those some any all every each many much most more best good other "
    "there here"
)
