"""Scores of events by hand: one event after another, one question after another, no cleverness."""

from typing import Any


def event_scores(answers: list[dict[str, Any]], triples: bool) -> dict[str, float]:
    """Every number from a list of answers.

    Args:
        answers: For each question its `event`, `dimension`, `kind`, `answer`, `accepted` (a list) and `right`.
        triples: Whether triples were taught, whose prompts are no questions of the events.
    """
    asked = ("portability",) if triples else ("reliability", "generalization", "portability")
    about = [one for one in answers if one["dimension"] in asked]
    events: dict[str, list[bool]] = {}
    stated: dict[str, list[bool]] = {}
    for one in about:
        events.setdefault(one["event"], []).append(one["right"])
        taught = one["dimension"] != "portability" and one["accepted"] != ["unknown"]
        if taught or one["kind"] == "stated":
            stated.setdefault(one["event"], []).append(one["right"])
    found = {
        "event_accuracy": sum(all(own) for own in events.values()) / len(events),
        "stated_event_accuracy": sum(all(own) for own in stated.values()) / len(stated),
        "question_accuracy": sum(one["right"] for one in about) / len(about),
    }
    held_out = [one for one in about if one["dimension"] != "reliability"]
    found["held_out_accuracy"] = sum(one["right"] for one in held_out) / len(held_out)
    left_open = [one for one in about if one["accepted"] == ["unknown"]]
    found["abstention"] = sum(one["right"] for one in left_open) / len(left_open)
    others = [one for one in about if one["accepted"] != ["unknown"]]
    found["false_abstention"] = sum(one["answer"] == "unknown" for one in others) / len(others)
    watched = [one for one in answers if one["dimension"] == "locality"]
    found["average"] = (found["question_accuracy"] + sum(one["right"] for one in watched) / len(watched)) / 2
    return found
