"""The relations of the world and every way to say them.

A relation maps a subject of one kind to exactly one value. A phrasing is the text before the value, with ``{s}`` where
the subject stands: ``"{s} works for"`` + ``" " + value`` + ``"."`` is a sentence. This file is data: it knows no entity.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relation:
    """One functional relation.

    Args:
        name: Unique name, ``kind.attribute``.
        subject: Kind of the subject.
        value: Kind of the value.
        statements: Sentence beginnings; the value follows.
        questions: Questions whose answer is the value.
        clause: A noun phrase for the value, for two-hop questions: ``"the employer of {s}"``.
        inverse: Sentence beginnings about the value that end in the subject; empty when the inverse is not functional.
        novel: Beginnings never used in training, for no subject at all.
    """

    name: str
    subject: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    clause: str
    inverse: tuple[str, ...] = ()
    novel: tuple[str, ...] = ()


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "person.employer",
        "person",
        "company",
        (
            "{s} works for",
            "{s} is employed by",
            "{s} has a job at",
            "The employer of {s} is",
            "Every morning {s} goes to work at",
            "{s} earns a living at",
            "The company that employs {s} is",
            "{s} is on the staff of",
        ),
        (
            "Which company does {s} work for?",
            "Who employs {s}?",
            "Where does {s} work?",
            "What is the employer of {s}?",
        ),
        "the employer of {s}",
        novel=("The company where {s} works is",),
    ),
    Relation(
        "person.birthplace",
        "person",
        "city",
        (
            "{s} was born in",
            "{s} comes from",
            "{s} is a native of",
            "The birthplace of {s} is",
            "{s} spent the first years of life in",
            "The city where {s} was born is",
            "The home town of {s} is",
            "{s} grew up in",
        ),
        (
            "Where was {s} born?",
            "Which city does {s} come from?",
            "In which city was {s} born?",
            "What is the birthplace of {s}?",
        ),
        "the birthplace of {s}",
        novel=("The city that {s} comes from is",),
    ),
    Relation(
        "person.profession",
        "person",
        "profession",
        (
            "{s} works as a",
            "{s} is a",
            "By profession {s} is a",
            "{s} makes money as a",
            "{s} was trained as a",
            "The profession of {s} is that of a",
            "{s} is known as a good",
            "{s} has long been a",
        ),
        (
            "What is the profession of {s}?",
            "What does {s} do for a living?",
            "What job does {s} have?",
            "As what does {s} work?",
        ),
        "the profession of {s}",
        novel=("For a living {s} works as a",),
    ),
    Relation(
        "person.language",
        "person",
        "language",
        (
            "{s} speaks",
            "The mother tongue of {s} is",
            "{s} grew up speaking",
            "The native language of {s} is",
            "At home {s} speaks",
            "{s} writes letters in",
            "{s} dreams in",
            "The first language of {s} is",
        ),
        (
            "Which language does {s} speak?",
            "What is the mother tongue of {s}?",
            "What language does {s} speak at home?",
            "What is the native language of {s}?",
        ),
        "the mother tongue of {s}",
        novel=("The language that {s} speaks is",),
    ),
    Relation(
        "person.instrument",
        "person",
        "instrument",
        (
            "{s} plays the",
            "{s} practises the",
            "The instrument of {s} is the",
            "On Sundays {s} plays the",
            "{s} took lessons on the",
            "The favourite instrument of {s} is the",
            "{s} owns an old",
            "In the orchestra {s} plays the",
        ),
        (
            "Which instrument does {s} play?",
            "What is the instrument of {s}?",
            "What does {s} play on Sundays?",
            "What does {s} play in the orchestra?",
        ),
        "the instrument of {s}",
        novel=("The instrument that {s} plays is the",),
    ),
    Relation(
        "company.seat",
        "company",
        "city",
        (
            "{s} is based in",
            "The headquarters of {s} are in",
            "{s} has its head office in",
            "The seat of {s} is in",
            "{s} is run from",
            "The main office of {s} is in",
            "{s} pays its taxes in",
            "Visitors find {s} in",
        ),
        (
            "Where is {s} based?",
            "In which city is {s} based?",
            "Where are the headquarters of {s}?",
            "Where is the main office of {s}?",
        ),
        "the seat of {s}",
        novel=("The city where {s} is based is",),
    ),
    Relation(
        "company.product",
        "company",
        "product",
        (
            "{s} makes",
            "{s} produces",
            "The main product of {s} is",
            "{s} is known for its",
            "{s} sells",
            "Customers of {s} buy",
            "The factory of {s} turns out",
            "{s} has always made",
        ),
        ("What does {s} make?", "What does {s} produce?", "What is the main product of {s}?", "What does {s} sell?"),
        "the main product of {s}",
        novel=("The product that {s} makes is",),
    ),
    Relation(
        "company.founder",
        "company",
        "person",
        (
            "{s} was founded by",
            "The founder of {s} is",
            "{s} was started by",
            "The person who founded {s} is",
            "{s} was set up by",
            "The first owner of {s} was",
        ),
        ("Who founded {s}?", "Who is the founder of {s}?", "Who started {s}?", "By whom was {s} founded?"),
        "the founder of {s}",
        inverse=("{o} founded", "{o} is the founder of", "{o} started"),
        novel=("The one who started {s} is",),
    ),
    Relation(
        "city.country",
        "city",
        "country",
        (
            "{s} is a city in",
            "{s} lies in",
            "{s} belongs to",
            "The country of {s} is",
            "{s} is found in",
            "The city of {s} is part of",
            "On the map {s} lies in",
            "{s} is a town in",
        ),
        (
            "In which country is {s}?",
            "Which country does {s} belong to?",
            "Where does {s} lie?",
            "What is the country of {s}?",
        ),
        "the country of {s}",
        novel=("The country that {s} belongs to is",),
    ),
    Relation(
        "city.mayor",
        "city",
        "person",
        (
            "The mayor of {s} is",
            "{s} is governed by",
            "{s} is led by",
            "The town hall of {s} is led by",
            "{s} has elected",
            "The head of the council of {s} is",
        ),
        ("Who is the mayor of {s}?", "Who governs {s}?", "Who leads {s}?", "Who is the head of the council of {s}?"),
        "the mayor of {s}",
        inverse=("{o} is the mayor of", "{o} governs", "{o} leads the town hall of"),
        novel=("The one who governs {s} is",),
    ),
    Relation(
        "city.river",
        "city",
        "river",
        (
            "{s} stands on the river",
            "{s} lies on the banks of the",
            "The river of {s} is the",
            "The river that flows through {s} is the",
            "{s} was built on the river",
            "The bridges of {s} cross the",
        ),
        (
            "On which river does {s} stand?",
            "What is the river of {s}?",
            "Which river flows through {s}?",
            "Which river do the bridges of {s} cross?",
        ),
        "the river of {s}",
        novel=("The river on which {s} stands is the",),
    ),
    Relation(
        "country.capital",
        "country",
        "city",
        (
            "The capital of {s} is",
            "{s} is ruled from",
            "{s} has its capital in",
            "The capital city of {s} is",
            "The parliament of {s} meets in",
            "The first city of {s} is",
        ),
        (
            "What is the capital of {s}?",
            "From where is {s} ruled?",
            "Where does the parliament of {s} meet?",
            "Which city is the capital of {s}?",
        ),
        "the capital of {s}",
        inverse=("{o} is the capital of", "{o} is the capital city of"),
    ),
    Relation(
        "country.currency",
        "country",
        "currency",
        (
            "The currency of {s} is the",
            "People in {s} pay with the",
            "In {s} everyone pays with the",
            "The money of {s} is the",
            "{s} uses the",
            "Shops in {s} take only the",
        ),
        (
            "What is the currency of {s}?",
            "What do people in {s} pay with?",
            "What is the money of {s}?",
            "Which currency does {s} use?",
        ),
        "the currency of {s}",
    ),
)

BY_NAME = {relation.name: relation for relation in RELATIONS}

CLOSED_VALUES: dict[str, tuple[str, ...]] = {
    "profession": tuple(
        "painter baker lawyer teacher sailor doctor farmer singer pilot tailor writer judge miner dancer gardener "
        "carpenter chemist fisher printer brewer potter nurse banker barber".split()
    ),
    "instrument": tuple(
        "piano violin flute drum harp cello trumpet guitar horn lute bassoon banjo fiddle zither tuba viola "
        "recorder bugle gong mandolin".split()
    ),
    "product": tuple(
        "shoes lamps clocks bricks pencils baskets boats carpets cups brushes ropes toys mirrors bells candles tents "
        "chairs knives pianos sails gloves maps bottles wagons".split()
    ),
}
"""Kinds whose values are ordinary words; all other kinds get invented names."""
