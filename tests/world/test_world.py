"""The embedded world: seeded, functional, truthful; its probes have the right answers."""

import random
import re
from itertools import islice

import pytest

from lightning_edit.data.world.arithmetic import add_steps, arithmetic, subtract_steps
from lightning_edit.data.world.corpus import MIXTURES, active_share, documents, next_year, prose_share
from lightning_edit.data.world.documents import Writer
from lightning_edit.data.world.edits import subjects, world_requests
from lightning_edit.data.world.facts import (
    World,
    held_out_phrasings,
    held_out_questions,
    seen_phrasings,
    seen_questions,
)
from lightning_edit.data.world.mentions import NOBODY, Mentions
from lightning_edit.data.world.relations import BY_NAME, RELATIONS
from lightning_edit.data.world.tasks import (
    UNKNOWN,
    again,
    choice,
    hop_task,
    hops,
    is_held_out,
    numbered_selection,
    reading,
    selection,
    two_hop,
)
from lightning_edit.requests import check_batch


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture
def writer(world):
    return Writer(world, random.Random(3))


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world):
    assert World().facts == world.facts
    assert World(1).facts != world.facts


def test_no_two_names_share_a_word(world):
    words = [word for names in world.entities.values() for name in names for word in name.split()]
    words += list(world.nicknames.values())
    assert len(words) == len(set(words))


def test_every_entity_has_every_relation_of_its_kind(world):
    assert len(world.facts) == sum(world.sizes[relation.subject] for relation in RELATIONS)
    for (subject, name), fact in world.facts.items():
        assert subject in world.entities[BY_NAME[name].subject]
        assert fact.value in world.values[BY_NAME[name].value]


def test_a_relation_with_an_inverse_is_one_to_one(world):
    for relation in RELATIONS:
        values = [fact.value for fact in world.facts.values() if fact.relation == relation]
        if relation.inverse:
            assert len(values) == len(set(values)), relation.name


def test_held_out_phrasings_are_never_seen_and_differ_between_facts(world):
    facts = [fact for fact in world.facts.values() if fact.relation.name == "person.employer"]
    for fact in facts:
        assert not set(seen_phrasings(fact)) & set(held_out_phrasings(fact))
        assert not set(seen_questions(fact)) & set(held_out_questions(fact))
        assert held_out_phrasings(fact)
        assert held_out_questions(fact)
    assert {phrasing for fact in facts for phrasing in held_out_phrasings(fact)} == set(facts[0].relation.statements)


def test_prose_states_only_what_is_true_in_phrasings_that_may_be_shown(world, writer):
    true = {f"{p.format(s=f.subject)} {f.value}." for f in world.facts.values() for p in seen_phrasings(f)}
    true |= {f"{p.format(o=f.value)} {f.subject}." for f in world.facts.values() for p in f.relation.inverse}
    true |= {text[0].upper() + text[1:] for text in true} | {text[0].lower() + text[1:] for text in true}
    for _ in range(200):
        for text in re.findall(r"[^.]+\.", writer.statements()):
            words = text.split()
            assert any(" ".join(words[start:]) in true for start in range(len(words))), text


def test_reading_gives_the_answer_in_the_context_and_not_the_known_one(world, writer):
    for _ in range(200):
        task = reading(writer)
        context, _, _ = task.prompt.partition("Question:")
        assert f"{task.answer}." in context
        assert task.response == f"{task.answer}."


@pytest.mark.parametrize("task", [selection, numbered_selection])
def test_selection_names_the_fact_that_answers_or_says_that_none_does(world, writer, task):
    fitting = 0
    for _ in range(300):
        asked = task(writer)
        listed = asked.prompt.removeprefix("Facts: ").partition(" Question:")[0]
        chosen, _, answer = asked.response.partition(" Answer: ")
        if task is numbered_selection:
            numbers = [int(number) for number in re.findall(r" (\d)\.", listed)]
            assert numbers == list(range(1, len(numbers) + 1))
        if chosen == "none.":
            assert answer == f"{UNKNOWN}." or answer.rstrip(".") in {fact.value for fact in world.facts.values()}
        else:
            assert f" {chosen}" in listed
            assert chosen.rstrip(".0123456789 ") == answer.rstrip(".") == asked.answer
            fitting += 1
    assert 120 < fitting < 280


def test_a_choice_offers_the_answer_once_with_its_letter(writer):
    for _ in range(100):
        task = choice(writer)
        options = task.prompt.partition("Choices: ")[2].removesuffix(". Answer:").split(", ")
        assert [option[-1] for option in options] == list("ABCD")
        assert len({option[:-2] for option in options}) == 4
        assert options.count(task.answer) == 1


def test_mentions_are_found_by_full_name_only(world):
    mentions = Mentions(world)
    person, city = world.entities["person"][3], world.entities["city"][5]
    text = f"{person} met {person.split()[1]} of {city}, and Nobody Else."
    found = [(text[:end], mentions.names[entity]) for end, entity in mentions.find(text)]
    assert found == [(person, person), (text.partition(",")[0], city)]
    spans = [(0, 3), (3, len(person)), (len(person), len(text))]
    assert mentions.at_tokens(text, spans) == [NOBODY, mentions.names.index(person), NOBODY]


def test_two_hop_questions_are_true_and_held_out_ones_never_asked(world, writer):
    asked = {two_hop(writer).prompt for _ in range(500)}
    for person in world.entities["person"][:60]:
        for first, second in hops(world, person):
            assert first.value == second.subject
            task = hop_task(first, second, writer.rng)
            assert task.answer == world.value(world.value(person, first.relation.name), second.relation.name)
            if is_held_out(first, second.relation):
                nested = first.relation.clause.format(s=person)
                held_out = {f"Question: {q.format(s=nested)} Thoughts:" for q in second.relation.questions}
                assert not held_out & asked


@pytest.mark.parametrize(("a", "b"), [(38, 25), (4, 5), (90, 9), (51, 31), (0, 7)])
def test_written_sums_are_right_in_every_step(a, b):
    for steps in (add_steps(a, b), subtract_steps(max(a, b), min(a, b))):
        for left, right in re.findall(r"([\d +-]+) = (\d+)", steps):
            assert eval(left) == int(right), steps


def test_stories_of_sums_end_with_what_is_left(writer):
    for _ in range(100):
        task = arithmetic(writer)
        total = int(re.search(r"has (\d+)", task.prompt)[1])
        for verb, amount in re.findall(r"(buys|gives away) (\d+)", task.prompt):
            total += int(amount) if verb == "buys" else -int(amount)
        assert task.answer == str(total)


def test_the_curriculum_grows_and_prose_gives_way_to_questions():
    shares = [active_share(progress / 20) for progress in range(20)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1.0
    assert prose_share(0.0) > prose_share(0.5) > prose_share(1.0) > 0
    assert MIXTURES["facts"].keys() <= MIXTURES["questions"].keys()
    assert all(prose_share(0.3, focus) < prose_share(0.3) for focus in ("questions", "choices"))


def test_what_is_said_again_has_the_same_labels_in_another_order(writer):
    for _ in range(100):
        task = again(writer)
        told = task.prompt.removeprefix("Notes: ").removesuffix(". Again:").split(", ")
        assert sorted(task.response.removesuffix(".").split(", ")) == sorted(told)
        assert len({item.rsplit(" ", 1)[1] for item in told}) == len(told)


def test_only_the_response_of_a_task_is_learned(world):
    for document in islice(documents(world, seed=7), 300):
        told, learned = document.text[: document.learn_from], document.text[document.learn_from :]
        assert learned.strip()
        if "Answer:" in document.text or "Fitting fact:" in document.text:
            assert re.search(r"(Answer|Thoughts|Fitting fact):$|^Context: ", told)
    assert [d.text for d in islice(documents(world, 7), 20)] == [d.text for d in islice(documents(world, 7), 20)]


def test_next_year_is_about_newcomers_only(world):
    texts = next_year(world, seed=0, count=60)
    people = set(world.entities["person"])
    assert len(texts) == 60
    assert not [name for text in texts for name in people if name in text]


def test_requests_change_one_fact_each_and_probe_what_stays_true(world):
    requests = world_requests(world, 400)
    check_batch(requests)
    assert len({request.subject for request in requests}) == 400
    changed = {(request.subject, request.relation) for request in requests}
    for request in requests:
        assert world.value(request.subject, request.relation) == request.old != request.target
        assert len(request.paraphrases) == 3
        for probe in (probe for probes in request.locality.values() for probe in probes):
            fact = _asked(world, probe)
            assert probe.answers == (fact.value,)
            assert (fact.subject, fact.relation.name) not in changed


def test_two_hop_probes_follow_the_edit_to_a_fact_that_no_request_changes(world):
    everything = world_requests(world, len(subjects(world)[0]))
    changed = {(request.subject, request.relation) for request in everything}
    probes = 0
    for request in everything:
        for probe in request.portability.get("reasoning", ()):
            second = [f for f in world.about(request.target) if f.value == probe.answers[0]]
            assert any((f.subject, f.relation.name) not in changed for f in second)
            probes += 1
    assert probes > 40


def test_more_requests_than_subjects_are_refused(world):
    with pytest.raises(ValueError, match="subjects to edit"):
        world_requests(world, 10_000)


def _asked(world, probe):
    """The fact that a probe asks for."""
    for fact in world.facts.values():
        if fact.subject in probe.prompt and fact.value == probe.answers[0]:
            texts = [p.format(s=fact.subject) for p in fact.relation.statements]
            texts += [f"Question: {q.format(s=fact.subject)} Answer:" for q in fact.relation.questions]
            if probe.prompt in texts or probe.prompt in [text[0].upper() + text[1:] for text in texts]:
                return fact
    raise AssertionError(f"no fact answers {probe}")
