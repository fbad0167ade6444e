"""A model's own chat template, which writes prompts as conversations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from stv_exp.errors import StvError

Content = str | list[dict[str, str]]  # of a turn: text, or texts and places of images
_ANSWER = "answer-0"  # no word of a template


class ChatTemplate:
    """The template of a processor under the arguments of its own, such as `enable_thinking`.

    Raises `StvError` where there is no template, or one that does not read an argument: it would change nothing.
    """

    def __init__(self, processor: Any, name: str, arguments: Mapping[str, Any]) -> None:
        self.processor = processor
        self.name = name
        self.arguments = dict(arguments)
        if not (template := getattr(processor, "chat_template", None)):
            raise StvError(f"model.chat=true, but {name} has no chat template; set it to false.")
        for key in self.arguments:
            if not re.search(rf"\b{re.escape(str(key))}\b", str(template)):
                raise StvError(
                    f"The chat template of {name} does not read model.chat_arguments.{key}; "
                    "leave it out or write it as the template does."
                )

    def behind_an_answer(self, content: Callable[[str], Content]) -> str:
        """What it writes there, of a conversation whose texts `content` makes turns of."""
        asked, answer = content("question"), content(_ANSWER)
        return self.write([(asked, answer), (asked, answer)]).partition(_ANSWER)[2]

    def write(self, turns: Sequence[tuple[Content, Content]]) -> str:
        """The conversation of questions and answers up to the last question, and the beginning of its answer."""
        messages = []
        for asked, answer in turns:
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answer})
        apply = self.processor.apply_chat_template
        try:
            return apply(messages[:-1], add_generation_prompt=True, tokenize=False, **self.arguments)
        except (TemplateError, TypeError, ValueError) as error:
            reason = f"The chat template of {self.name} refuses the prompt ({str(error).splitlines()[0].rstrip('.')})"
            raise StvError(f"{reason}; mend model.chat_arguments or use model.chat=false.") from error
