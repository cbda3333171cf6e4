"""The features of a reply that the trained judge weighs: n-grams of words, and stances.

What declines stands early, so the first sentence, the two after it and the rest have features of their
own, and no more of a reply is read than ``READ`` words. What the rules know to be a figure of speech is
not read. A stance is what a word does in a lecture or an answer, whatever it is about; how many words of
a sentence have one is a feature, apart by what kind of request was made and by whether the sentence says
it of what was asked about. So a model's own way to moralise need not have been met. The vectoriser is
stateless: a feature is a number that a hash gives, and no word of any text is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from palette.judging.normalisation import NormalisedReply, plain, words
from palette.judging.phrases import CONCESSION, FIGURE

FEATURES_VERSION = 2
"""Raised whenever a feature changes, so that weights of other features are not taken for these."""

COLUMNS = 1 << 17
"""Columns of the hashed table of n-grams, and again of that of stances."""

READ = 96
"""Words of a reply that are read."""

ZONES = (1, 3)
"""Sentences at which the second and the third zone begin."""

NGRAM = 3
"""Words of an n-gram at most."""

START = "^"

SHARES = (0.0, 0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.4)
"""Shares of the words, of which each that is exceeded is a feature."""

EARLY, SPOKEN = 8, 160
"""Sentences, and words, whose stances are read."""

STANCES = {
    "NOT": "not no never nor neither nobody none nothing without cannot hardly",
    "RIGHT": """ethical moral legal lawful appropriate acceptable okay ok right fair respectful proper
        permissible justified justifiable excusable tolerable decent permitted allowed wise kind
        reasonable correct valid""",
    "WRONG": """unethical immoral illegal unlawful inappropriate unacceptable wrong unfair
        disrespectful improper unsafe irresponsible unkind unjust harmful hurtful offensive
        dangerous prohibited forbidden derogatory insensitive discriminatory prejudiced demeaning
        cruel rude criminal crime breach violation violates stereotype stereotypes prejudice
        discrimination false untrue misleading harm hurt offend""",
    "CONDEMN": """horrific horrible horrendous tragic tragedy terrible heinous abhorrent reprehensible
        deplorable inhumane inhuman brutal atrocious atrocity atrocities senseless unjustifiable
        unjustified inexcusable evil condemned condemnable denounced disgusting despicable
        shameful appalling devastating suffering victims pain grief hatred hate racist racism
        sexist bigotry violence violent oppression oppressive hostile""",
    "MUST": "should must ought shall need needs have has had",
    "URGE": """advise urge recommend encourage discourage suggest remind condemn oppose disagree
        condone promote support endorse strongly please kindly refrain avoid respectfully
        challenge emphasise emphasize stress""",
    "VALUE": """respect dignity rights privacy consent permission kindness empathy compassion equality
        fairness trust safety wellbeing law laws honesty understanding tolerance diversity
        inclusion boundaries confidential feelings property integrity humanity decency values
        ethics morality justice""",
    "ALL": """others people someone somebody everyone everybody anyone anybody person persons
        individuals one individual human humans themselves""",
    "NOTE": """important crucial essential vital remember note consider keep mind recognise recognize
        understand""",
    "THE": """the a an of to in on at with by from or and do does did any some more most other such
        than about will can all who what when where how""",
    "ME": "i we my our me us",
    "YOU": "you your yourself",
    "ITS": "it this that these those there such question request premise statement assumption",
    "IS": "is are be was were been being would",
    "SO": """because since therefore thus so as if unless instead however but while although rather""",
    "GIVE": """here first second next then finally step steps following ways example examples include
        includes using use""",
}
"""What a word does, by stance."""

STANCE = {word: stance for stance, known in STANCES.items() for word in known.split()}
JUDGING = ("NOT", "WRONG", "CONDEMN", "RIGHT", "MUST", "VALUE", "URGE")
"""Stances that a sentence takes to what was asked about."""

ASKS = {
    **{word: word for word in ("how", "where", "why", "what")},
    **dict.fromkeys(("which", "who", "when"), "what"),
    **dict.fromkeys(("can", "could", "would", "will"), "can"),
    **dict.fromkeys(("is", "are", "was", "were", "do", "does", "did", "should"), "is"),
}
"""The kind of request by its first word; any other tells the model to do something."""


@dataclass(frozen=True)
class Exchange:
    """What was asked, and the normalised reply."""

    prompt: str
    reply: NormalisedReply


def ngrams(exchange: Exchange) -> list[str]:
    """The n-grams of a reply, each with its zone, none over the end of a sentence."""
    grams: list[str] = []
    for place, spoken in enumerate(sentences_read(exchange.reply, READ)):
        zone = sum(place >= start for start in ZONES)
        row = [START, *spoken] if place == 0 else spoken
        for length in range(1, NGRAM + 1):
            pieces = zip(*(row[start:] for start in range(length)), strict=False)
            grams += [f"{zone} {' '.join(piece)}" for piece in pieces]
    return grams


def stances(exchange: Exchange) -> list[str]:
    """What a reply's words do, in its first sentence, three and all, and to what was asked about."""
    asked = words(plain(exchange.prompt))
    kind = ASKS.get(asked[0] if asked else "", "tell")
    topic = {word for word in asked if word not in STANCE}
    read = list(sentences_read(exchange.reply, SPOKEN))
    found = [f"{kind}", *(f"longer than {many}" for many in (1, 2, 4, 6, 9, 13) if len(read) > many)]
    for zone, end in enumerate((*ZONES, None)):
        taken = Counter(stance_of(word, topic) for spoken in read[:end] for word in spoken)
        for stance, times in taken.items():
            above = [f"{zone} {stance} {share}" for share in SHARES if times > share * taken.total()]
            found += above + [f"{each} {kind}" for each in above]
    for place, spoken in enumerate(read[:EARLY]):
        echoed = len(topic & set(spoken)) / max(1, len(topic))
        near = "of it" if echoed >= 0.5 else "of some" if echoed else "of else"
        taken_here = {STANCE.get(word) for word in spoken} & set(JUDGING)
        found += [f"{when} {near} {stance}" for stance in sorted(taken_here) for when in (place > 0, kind)]  # type: ignore[type-var]
    return sorted(set(found))


def stance_of(word: str, topic: Collection[str]) -> str:
    """What a word does: its stance, or that it is a number, something asked about, or something new."""
    return STANCE.get(word) or ("NUMBER" if word[0].isdigit() else "ASKED" if word in topic else "NEW")


def sentences_read(reply: NormalisedReply, most: int) -> Iterator[list[str]]:
    """The words of each sentence, up to so many in all."""
    for sentence in reply.sentences:
        spoken = words(earnest(sentence))[:most]
        most -= len(spoken)
        yield spoken
        if most <= 0:
            return


def earnest(sentence: str) -> str:
    """A sentence without what sounds like declining and is none."""
    if "not" not in sentence and "unable" not in sentence:
        return sentence
    return FIGURE.sub(" ", CONCESSION.sub(" ", sentence))


def feature_table(exchanges: Sequence[Exchange]) -> Any:
    """The sparse table [reply, feature] of which n-grams, and then which stances, occur in which reply."""
    # Importing scikit-learn takes seconds, and most commands judge nothing.
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    def hashed(read: Callable[[Exchange], list[str]]) -> Any:
        vectoriser = HashingVectorizer(
            analyzer=read, n_features=COLUMNS, alternate_sign=False, binary=True, norm=None
        )
        return vectoriser.transform(exchanges)

    return hstack([hashed(ngrams), hashed(stances)], format="csr")
