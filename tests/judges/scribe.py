"""An assistant that replies what a function says, and keeps what it was asked."""

from lightning_edit.llm import Reply


class Scribe:
    """Args: reply maps a prompt to a text, a `Reply`, or an exception to be raised."""

    name = "scribe"
    identity = "scribe-1"

    def __init__(self, reply, backwards=False):
        self.reply = reply
        self.backwards = backwards
        self.asked = []
        self.closed = 0

    def ask(self, prompts):
        try:
            order = range(len(prompts))
            for index in reversed(order) if self.backwards else order:
                self.asked.append(prompts[index])
                said = self.reply(prompts[index])
                if isinstance(said, Exception):
                    raise said
                yield index, said if isinstance(said, Reply) else Reply(said)
        finally:
            self.closed += 1
