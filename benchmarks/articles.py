"""Articles to render: about 2.5 kB of HTML each, with six ad shortcodes, no two alike."""

import random
from collections.abc import Iterator

SLOTS = (889990, 889991, 889992, 889977, 889994, 889993)
_A_PARAGRAPH = 4

_SENTENCES = (
    "The night ferry came in twenty minutes early, which nobody on the quay could remember happening before.",
    "Council members spent most of the evening on a single question: who pays for the new sluice gate.",
    "Three bakeries on the market square have agreed to take turns closing on Mondays.",
    "“We measured it twice, because we did not believe it the first time,” the harbour master said.",
    "The library will lend out garden tools from April, spades and rakes first, a wheelbarrow on request.",
    "A survey of the dunes found eleven kinds of bee, four of them not seen here since the war.",
    "Work on the tram bridge has been put back again, this time because of the nesting terns.",
    "Her grandfather kept the lighthouse log in pencil, and the pencil has outlasted the ink around it.",
    "The school’s weather station sends its figures every ten minutes, and pupils read them out at noon.",
    "Traders had asked for the parking rules to stay as they are until after the summer.",
    "At low tide the old railway line can still be followed on foot for nearly a mile.",
    "The orchestra rehearses in the fish hall now, where the echo, its conductor says, forgives nothing.",
    "No one was hurt, and by six o’clock the road to the station was open in both directions.",
    "The mill has ground its own flour every Saturday since its sails were mended.",
    "What began as a reading group of five fills the chapel on the first Thursday of each month.",
    "A decision is expected before the budget is laid down in the autumn.",
)


def write_articles(count: int) -> Iterator[bytes]:
    """*count* different articles, the same ones each time."""
    dice = random.Random(2)
    for number in range(1, count + 1):
        yield _write(number, dice).encode()


def _write(number: int, dice: random.Random) -> str:
    parts = [f'<article id="story-{number}">\n<h1>Town notes, number {number}</h1>\n']
    for slot in SLOTS:
        parts.append(f"<p>{' '.join(dice.sample(_SENTENCES, _A_PARAGRAPH))}</p>\n")
        parts.append(f'[the_ad id="{slot}"]\n')
    return "".join([*parts, "</article>\n"])
