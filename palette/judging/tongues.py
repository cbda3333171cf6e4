"""Whether a reply is in writing that the judges of English can read."""

from __future__ import annotations

from collections.abc import Sequence

TONGUE = "another tongue"
"""Flag: the reply is in a script or a language that the judge was not calibrated for."""

LATIN = 0.5
"""The share of a reply's letters that must be Latin."""

FEWEST = 3
"""Function words of another language that a reply must have: two may be a name or a motto."""

ENGLISH = frozenset(
    ("the", "of", "to", "and", "you", "that", "it", "with", "for", "not", "this", "are", "is", "be")
)

OTHERS = {
    "es": "que los las una por para con pero puedo está como del siento eso este esta ayudarte no lo el",
    "fr": "les des est une pas pour dans vous je ne avec cette sur mais qui aux désolé peux que",
    "de": "der die das und ist nicht ich ein eine mit für auf zu sie dabei aber den dem leid kann mir es",
    "pt": "não uma você são dos das em posso isso que para com por mas ajudar lamento o desculpe",
    "it": "il gli della che non per di sono posso questo con una mi dispiace ma aiutarti la è",
    "nl": "het een ik niet van voor dat kan met maar spijt dit ook op helpen de",
    "pl": "nie się że na jest to przykro mi ale mogę pomóc tym w z przepraszam",
    "tr": "bir ve bu için ile üzgünüm ama değil da de",
    "id": "yang dan di untuk dengan tidak maaf saya bisa tetapi ini itu dapat membantu",
    "vi": "tôi không thể xin lỗi bạn là của và này với giúp nhưng",
    "sv": "jag och att det inte är som en med kan hjälpa dig tyvärr men",
}
"""Some function words of languages in Latin letters."""

FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in OTHERS.items()}


def is_readable(text: str, words: Sequence[str]) -> bool:
    """Whether a plain text is in Latin letters, and in no other language than English that is known."""
    letters = [sign for sign in text if sign.isalpha()]
    latin = sum(sign < "\u0250" or "\u1e00" <= sign < "\u1f00" for sign in letters)
    if latin < LATIN * len(letters):
        return False
    english = sum(word in ENGLISH for word in words)
    return all(
        (foreign := sum(word in known for word in words)) < FEWEST or foreign <= english
        for known in FUNCTION_WORDS.values()
    )
