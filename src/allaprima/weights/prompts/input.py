"""The text that a model's encoders get for a prompt, and what the client must know about it."""

from dataclasses import dataclass

from allaprima.domain.models import TokenCount
from allaprima.weights.prompts.reader import PromptReader
from allaprima.weights.tokenizers import PromptTokenizer, Tokens


@dataclass(frozen=True, slots=True)
class PromptInput:
    """Prepares prompts for one model."""

    #: T5's tokenizer, which reads the whole prompt.
    tokenizer: PromptTokenizer
    #: Rewrites prompts; None for a model that reads prompts as they are.
    reader: PromptReader | None = None

    def text(self, prompt: str) -> str:
        """Return the text for the tokenizers."""
        return prompt if self.reader is None else self.reader.read(prompt).caption

    def count(self, prompt: str) -> TokenCount:
        """Return the length of a prompt in tokens."""
        return TokenCount(self.tokenizer.count(self.text(prompt)), self.tokenizer.max_tokens)

    def warnings(self, prompt: str) -> tuple[str, ...]:
        """Return the sentences for the client: what is read as something else, left out, unknown or truncated."""
        read = () if self.reader is None else self.reader.read(prompt).warnings
        return (*read, *self._token_warnings(self.tokenizer.encode(self.text(prompt))))

    def _token_warnings(self, tokens: Tokens) -> list[str]:
        found = []
        if tokens.unknown_words:
            found.append(f"the model does not know these words: {', '.join(tokens.unknown_words)}")
        if tokens.over:
            found.append(f"the prompt is longer than {self.tokenizer.max_tokens} tokens; the rest was not read")
        return found
