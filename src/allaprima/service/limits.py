"""What the operator lets a request ask, within what can be painted at all."""

from dataclasses import dataclass

from allaprima.errors import FieldProblem, InvalidRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a request may ask of this server."""

    #: Longest side of a picture in pixels.
    side: int
    steps: int
    images: int

    def check(self, width: int, height: int, steps: int, images: int) -> None:
        """Raise `InvalidRequest` naming everything that is too much here."""
        asked = {
            "image_size.width": (width, self.side),
            "image_size.height": (height, self.side),
            "num_inference_steps": (steps, self.steps),
            "num_images": (images, self.images),
        }
        problems = [
            FieldProblem(name, f"must be at most {most} on this server; it is {value}")
            for name, (value, most) in asked.items()
            if value > most
        ]
        if problems:
            raise InvalidRequest(*problems)
