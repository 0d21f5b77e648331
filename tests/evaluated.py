"""A request with every kind of question, for tests of what is asked and counted."""

from typing import Any

from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest


def request(name: str, **changes: Any) -> EditRequest:
    """A request about somebody, who is also its id."""
    fields = {
        "id": name,
        "prompt": f"{name} lives in",
        "subject": name,
        "target": "Lyon",
        "paraphrases": (f"The home of {name} is", f"{name} dwells in"),
        "locality": {
            "same": (Probe(f"{name} plays the", ("harp",)),),
            "near": (Probe("Bo lives in", ("Rome",)), Probe("Cy lives in", ())),
        },
        "portability": {"reasoning": (Probe(f"Question: Which river is near {name}? Thoughts:", ("Rhone",)),)},
    }
    return EditRequest(**{**fields, **changes})
