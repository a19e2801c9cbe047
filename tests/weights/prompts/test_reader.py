"""The built-in model's reading of prompts: captions, and the warnings about what they leave out."""

import subprocess
import sys
import time

import pytest

from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.reader import MAX_NAMED, PromptReader, open_reader
from tests.weights.thousand_prompts import PROMPTS

#: Captions of training scenes, and prompts of the documentation, in known words alone.
CAPTIONS = [
    "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses.",
    "a red apple, blue background",
    "a picture of a unicorn above a house",
    "three red apples on a yellow background",
    "a cat to the left of a dog, in a meadow",
    "a fox in front of a pine tree in the forest",
    "a big orange pumpkin in a room",
    "two violet dragons under the stars",
    "in front of a gray wall a lovely green teapot",
    "a crab, a rocket, a slice of pizza and a heart in outer space",
    "clipart of a penguin holding a flower against a white background",
    "four t-shirts on sand dunes",
    "a couple of jack-o-lanterns at night",
    "draw a cup of coffee next to a birthday cake in the living room",
    "a blue butterfly on a pink flower",
    "a fox in the forest at night",
    "cats and dogs",
    "cat, dog",
    "red car, mountains",
]


@pytest.fixture(scope="module")
def reader() -> PromptReader:
    opened = open_reader(sketch_folder())
    assert opened is not None
    return opened


def caption(reader: PromptReader, prompt: str) -> str:
    return reader.read(prompt).caption


def named(reader: PromptReader, prompt: str) -> str:
    return "\n".join(reader.read(prompt).warnings)


@pytest.mark.parametrize("prompt", CAPTIONS)
def test_prompt_of_known_words_is_not_changed(reader: PromptReader, prompt: str) -> None:
    assert caption(reader, prompt) == prompt


@pytest.mark.parametrize(
    ("prompt", "expected", "sentence"),
    [
        ("a cabin", "a house", "cabin: read as house"),
        ("two lighthouses", "two castles", "lighthouses: read as castle"),
        ("an office chair in a library", "a chair in a room", "library: read as room"),
        ("portrait of an old fisherman", "a sailboat on the sea", "fisherman: read as sea"),
        ("a crimson car", "a red car", "crimson: read as red"),
        ("A CAFÉ at dusk", "a chair in a room at dusk", "cafe: read as room"),
        ("the king's coins", "a diamond", "coins: read as diamond"),
        ("a lorry by the harbour", "a truck on the sea", "harbour: read as sea"),
        ("a polar bear", "a bear", "polar"),
        ("an orange", "a lemon", "orange: read as lemon"),
    ],
)
def test_word_is_read_as_its_nearest_thing_place_or_colour(
    reader: PromptReader, prompt: str, expected: str, sentence: str
) -> None:
    assert caption(reader, prompt).replace("at sunset", "at dusk") == expected
    assert sentence in named(reader, prompt)


def test_last_noun_of_a_compound_counts(reader: PromptReader) -> None:
    assert caption(reader, "a red sports car on a mountain road") == "a red car in the mountains"
    assert caption(reader, "a golden retriever puppy") == "a dog"
    assert caption(reader, "a sunny sunflower field") == "a sunflower in a meadow"
    assert caption(reader, "a bowl of ramen with egg") == "a pizza"
    assert caption(reader, "a statue of a lion") == "a lion"


def test_words_without_a_neighbour_are_named_in_one_sentence(reader: PromptReader) -> None:
    assert reader.read("a cozy Qwertz cat").warnings == ("the model does not know these words: cozy, Qwertz",)


def test_warning_names_twelve_words_at_most(reader: PromptReader) -> None:
    [warning] = reader.read("a cat, " + ", ".join(f"qwert{letter}" for letter in "abcdefghijklmnop")).warnings

    assert warning.count("qwert") == MAX_NAMED
    assert warning.endswith("and 4 more")


def test_prompt_without_a_known_thing_gets_a_scene_of_its_place(reader: PromptReader) -> None:
    reading = reader.read("a beautiful sunset over the ocean")

    assert reading.caption == "a sailboat on the sea at sunset"
    assert reading.warnings == (
        'the model knows no thing in this prompt; the image shows "a sailboat on the sea at sunset"',
    )
    assert caption(reader, "hope") == "a tree in a meadow"
    assert caption(reader, "nothing on a blue background") == "a star on a blue background"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("(masterpiece:1.2), best quality, (cat:1.3), 8k", "a cat"),
        ("cat::2, --ar 16:9 --v 6", "a cat"),
        ("<lora:three dogs:0.8> a cat, score_9, score_8_up", "a cat"),
        ("[cat:dog:0.5]", "cat"),
        ("a {red|blue} car", "a red car"),
        ("a cat, f/1.8, 35mm, ISO 100, 1920x1080", "a cat"),
        ("a two-story house", "a house"),
        ("a three-headed dog", "a dog"),
        ("a cat in 2024", "a cat"),
        ("a dog Negative prompt: three cats", "a dog"),
        ("two cakes for one birthday card", "two birthday cakes"),
    ],
)
def test_numbers_of_other_programs_syntax_count_nothing(reader: PromptReader, prompt: str, expected: str) -> None:
    assert caption(reader, prompt) == expected


def test_ignored_syntax_and_style_are_named(reader: PromptReader) -> None:
    text = named(reader, "masterpiece, a cat, watercolor, <lora:x:1> --ar 3:2")

    assert "words of style change nothing: masterpiece, watercolor" in text
    assert "tags and options of other programs are ignored: <lora:x:1>, --ar 3:2" in text


def test_flying_thing_is_no_ufo(reader: PromptReader) -> None:
    assert caption(reader, "a dragon flying over a medieval castle") == "a dragon above a castle"


def test_colour_belongs_to_the_noun_that_it_precedes(reader: PromptReader) -> None:
    assert caption(reader, "a woman with a red umbrella") == "a red umbrella"
    assert caption(reader, "a blue car next to a red rose") == "a blue car next to a red rose"
    assert caption(reader, "a girl with blue eyes and a car") == "a car"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a slow turtle on plain white", "a turtle on a white background"),
        ("Red everywhere, and a sleepy snowman", "a snowman on a red background"),
        ("a sleepy whale, but the background is orange", "a whale on an orange background"),
        ("a teapot in front of a gray concrete wall", "a teapot on a gray background"),
        ("yellow wallpaper with one butterfly", "a butterfly on a yellow background"),
        ("a girl with blue eyes and a car", "a car"),
        ("a moody black and white photograph of an elephant", "an elephant"),
        ("a sleepy fox on a beach, blue", "a fox on a beach"),
    ],
)
def test_colour_of_no_noun_is_that_of_the_background(reader: PromptReader, prompt: str, expected: str) -> None:
    assert reader.read(prompt).caption == expected


def test_verb_in_s_is_no_thing(reader: PromptReader) -> None:
    assert reader.read("The lion watches over the plains at sunset").things == ("lion",)


def test_colour_that_a_thing_cannot_have_is_named(reader: PromptReader) -> None:
    # The words are known, so the prompt keeps its tokens.
    assert reader.read("a yellow banana").caption == "a yellow banana"
    assert reader.read("a ripe yellow banana").caption == "a banana"
    assert reader.read("a yellow banana").warnings == ("left out: yellow (of banana)",)
    assert reader.read("a white cat on a beach").warnings == ("left out: white (of cat)",)


def test_number_beyond_four_is_named(reader: PromptReader) -> None:
    assert caption(reader, "five red apples") == "four red apples"
    assert "five: read as four" in named(reader, "five red apples")


def test_negated_things_and_writing_are_left_out(reader: PromptReader) -> None:
    assert caption(reader, "a cat without a hat") == "a cat"
    assert "left out: hat" in named(reader, "a cat without a hat")
    assert caption(reader, 'a cake with the words "Two Dogs"') == "a birthday cake"
    assert "the model can't write: Two Dogs" in named(reader, 'a cake with the words "Two Dogs"')


def test_accessory_that_a_thing_cannot_wear_stands_next_to_it(reader: PromptReader) -> None:
    assert caption(reader, "cartoon banana wearing sunglasses") == "a banana next to sunglasses"
    assert caption(reader, "a wizard cat wearing a hat") == "a cat wearing a top hat"


def test_scene_has_four_things_at_most(reader: PromptReader) -> None:
    reading = reader.read("cozy cat, dog, fox, bear, lion, tiger")

    assert reading.caption == "a cat, a dog, a fox and a bear"
    assert "left out: lion, tiger" in reading.warnings


@pytest.mark.parametrize("prompt", ["???", "红苹果", "99", "the", "(" * 4000, "<" * 4000, "a-" * 2000, "x " * 2000])
def test_any_text_gets_a_caption_with_a_thing(reader: PromptReader, prompt: str) -> None:
    assert reader.read(prompt).things


def test_thousand_prompts_are_read_in_a_millisecond_each(reader: PromptReader) -> None:
    reader.read("warm")
    started = time.process_time()

    assert all(reader.read(prompt).caption for prompt in PROMPTS)

    assert time.process_time() - started < len(PROMPTS) / 1000


def test_reading_needs_neither_torch_nor_numpy() -> None:
    script = """
import sys
from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.reader import open_reader

assert "cabin: read as house" in open_reader(sketch_folder()).read("a cabin").warnings
assert not {"torch", "numpy"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
