"""The things that `sketch` can paint: names, other names, and what can be done with each.

Names and other names follow the annotations of emojibase (MIT). A thing that comes in many colours can be asked for in
any of `art.DYES` and is recoloured; one with a face or a hand can wear or hold an accessory.
"""

from dataclasses import dataclass

#: Where something is fastened: (x, y) and its width, as fractions of the thing's square.
Spot = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Body:
    """Where accessories go. None: it can't carry any there."""

    #: Middle of sunglasses.
    eyes: Spot | None = None
    #: Middle of a hat's lower edge.
    head: Spot | None = None
    #: The hand; the third number is the side of what it holds.
    hand: Spot | None = None


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that can be painted."""

    #: The icon's name in the art package, and the thing's identity.
    icon: str
    #: What captions call it; the first is the usual name.
    wordings: tuple[str, ...]
    #: The usual one of the colours that it comes in (`art.DYES`). None: it comes in its own alone.
    colour: str | None = None
    #: Whether two or more of it are spoken of by number ("two socks" is a pair).
    counts: bool = True
    body: Body = Body()


def _thing(
    icon: str, *wordings: str, colour: str | None = None, counts: bool = True, body: Body | None = None
) -> Thing:
    return Thing(icon, wordings or (icon.replace("-", " "),), colour, counts, body or Body())


def _face(eyes: float, head: float, width: float = 0.66) -> Body:
    """A face seen from the front: heights of eyes and of the top of the head, width of the glasses."""
    return Body(eyes=(0.5, eyes, width), head=(0.5, head, 0.5))


_ANIMALS = (
    _thing(
        "t-rex",
        "t-rex",
        "trex",
        "tyrannosaurus",
        "dinosaur",
        colour="green",
        body=Body(eyes=(0.25, 0.16, 0.38), head=(0.28, 0.1, 0.34), hand=(0.17, 0.5, 0.44)),
    ),
    _thing("dog-face", "dog", "puppy", "dog face", "doggy", body=_face(0.46, 0.12)),
    _thing("cat-face", "cat", "kitten", "cat face", "kitty", body=_face(0.47, 0.24)),
    _thing("fox", "fox", "fox face", body=_face(0.58, 0.32, 0.56)),
    _thing("panda", "panda", "panda bear", body=_face(0.46, 0.14)),
    _thing("frog", "frog", "toad", "frog face", body=Body(eyes=(0.5, 0.23, 0.72))),
    _thing("pig-face", "pig", "piglet", "pig face", body=_face(0.42, 0.12)),
    _thing("lion", "lion", "lion face", body=_face(0.42, 0.1, 0.5)),
    _thing("tiger-face", "tiger", "tiger face", body=_face(0.44, 0.12, 0.5)),
    _thing("cow-face", "cow", "cow face", body=_face(0.42, 0.16, 0.5)),
    _thing("monkey-face", "monkey", "ape", "monkey face", body=_face(0.44, 0.17, 0.5)),
    _thing("mouse-face", "mouse", "mouse face", body=_face(0.56, 0.28, 0.5)),
    _thing("rabbit-face", "rabbit", "bunny", "rabbit face", body=_face(0.58, 0.4, 0.5)),
    _thing("bear", "bear", "grizzly", "brown bear", body=_face(0.44, 0.16)),
    _thing("koala", "koala", "koala bear", body=_face(0.42, 0.16)),
    _thing("penguin", "penguin", body=Body((0.5, 0.24, 0.46), (0.5, 0.06, 0.4), (0.14, 0.62, 0.44))),
    _thing("owl", body=Body(head=(0.5, 0.1, 0.42))),
    _thing("duck", "duck", "mallard"),
    _thing("swan"),
    _thing("flamingo"),
    _thing("parrot"),
    _thing("elephant"),
    _thing("giraffe"),
    _thing("zebra"),
    _thing("camel", "camel", "dromedary"),
    _thing("kangaroo"),
    _thing("hedgehog"),
    _thing("horse", "horse", "pony"),
    _thing("unicorn"),
    _thing("dragon", colour="green"),
    _thing("crocodile", "crocodile", "alligator"),
    _thing("turtle", "turtle", "tortoise"),
    _thing("snake", "snake", "serpent", colour="green"),
    _thing("octopus", colour="orange"),
    _thing("crab"),
    _thing("spouting-whale", "whale", "spouting whale"),
    _thing("dolphin"),
    _thing("shark"),
    _thing("tropical-fish", "fish", "tropical fish"),
    _thing("snail"),
    _thing("butterfly", colour="orange"),
    _thing("bug", "caterpillar", colour="green"),
    _thing("honeybee", "bee", "honeybee", "bumblebee"),
    _thing("lady-beetle", "ladybug", "ladybird", "beetle"),
    _thing("jellyfish", colour="blue"),
)

_FOOD = (
    _thing("red-apple", "apple", "red apple", colour="red"),
    _thing("banana"),
    _thing("strawberry"),
    _thing("cherries", "cherries", "pair of cherries", counts=False),
    _thing("grapes", "grapes", "bunch of grapes", counts=False),
    _thing("pineapple"),
    _thing("watermelon", "watermelon", "slice of watermelon", "melon"),
    _thing("lemon"),
    _thing("peach"),
    _thing("pear", colour="green"),
    _thing("kiwi-fruit", "kiwi", "kiwi fruit"),
    _thing("avocado"),
    _thing("tomato"),
    _thing("carrot"),
    _thing("ear-of-corn", "corn", "ear of corn", "maize", counts=False),
    _thing("mushroom", "mushroom", "toadstool", colour="red"),
    _thing("bread", "bread", "loaf of bread", "toast", counts=False),
    _thing("croissant"),
    _thing("pretzel"),
    _thing("pancakes", "pancakes", "stack of pancakes", counts=False),
    _thing("cheese-wedge", "cheese", "piece of cheese", "wedge of cheese", counts=False),
    _thing("hamburger", "hamburger", "burger", "cheeseburger"),
    _thing("french-fries", "french fries", "fries", counts=False),
    _thing("pizza", "pizza", "slice of pizza"),
    _thing("hot-dog", "hot dog", "hotdog"),
    _thing("doughnut", "doughnut", "donut"),
    _thing("cookie", "cookie", "biscuit"),
    _thing("birthday-cake", "birthday cake", "cake"),
    _thing("cupcake", "cupcake", "muffin", colour="pink"),
    _thing("soft-ice-cream", "ice cream", "ice cream cone", "icecream"),
    _thing("lollipop", "lollipop", "lolly"),
    _thing("candy", "candy", "sweet", colour="red"),
    _thing("popcorn", counts=False),
    _thing("teapot", "teapot", "pot of tea", colour="red"),
    _thing("hot-beverage", "coffee", "cup of coffee", "mug of coffee", counts=False),
    _thing("beer-mug", "beer", "mug of beer", "glass of beer", counts=False),
)

_NATURE = (
    _thing("palm-tree", "palm tree", "palm"),
    _thing("evergreen-tree", "pine tree", "fir tree", "evergreen tree", "fir"),
    _thing("deciduous-tree", "tree", "oak tree", "oak"),
    _thing("cactus"),
    _thing("sunflower"),
    _thing("tulip", "tulip", "flower", colour="pink"),
    _thing("rose", colour="red"),
    _thing("four-leaf-clover", "clover", "four-leaf clover", "shamrock"),
    _thing("maple-leaf", "maple leaf", "leaf", colour="red"),
    _thing("sun", "sun", "sunshine", counts=False),
    _thing("crescent-moon", "moon", "crescent moon"),
    _thing("star", colour="yellow"),
    _thing("rainbow"),
    _thing("cloud"),
    _thing("snowflake", "snowflake", "snow crystal"),
    _thing("fire", "fire", "flame", "campfire"),
    _thing("ringed-planet", "planet", "saturn", "ringed planet", colour="orange"),
)

_PLACES_AND_VEHICLES = (
    _thing("automobile", "car", "automobile", colour="red"),
    _thing("ambulance"),
    _thing("fire-engine", "fire engine", "fire truck"),
    _thing("bus", "bus", "school bus", colour="orange"),
    _thing("delivery-truck", "truck", "lorry", "delivery truck", colour="orange"),
    _thing("tractor", colour="green"),
    _thing("bicycle", "bicycle", "bike"),
    _thing("motor-scooter", "scooter", "motor scooter", "moped", colour="red"),
    _thing("locomotive", "train", "locomotive", "steam train"),
    _thing("airplane", "airplane", "plane", "aeroplane", "jet"),
    _thing("helicopter", "helicopter", "copter", colour="orange"),
    _thing("rocket", "rocket", "spaceship", "rocket ship"),
    _thing("flying-saucer", "ufo", "flying saucer"),
    _thing("sailboat", "sailboat", "sailing boat", "boat", "yacht"),
    _thing("ship", "ship", "cruise ship", "steamer"),
    _thing("anchor", colour="blue"),
    _thing("house", "house", "home", "cottage"),
    _thing("castle"),
    _thing("tent", colour="green"),
    _thing("ferris-wheel", "ferris wheel", "big wheel"),
)

_OBJECTS = (
    _thing("balloon", colour="red"),
    _thing("soccer-ball", "soccer ball", "football"),
    _thing("basketball"),
    _thing("kite"),
    _thing("crown"),
    _thing("top-hat", "top hat", "hat"),
    _thing("umbrella", colour="purple"),
    _thing("sunglasses", "sunglasses", "pair of sunglasses", "shades", counts=False),
    _thing("robot", "robot", "android", body=Body((0.5, 0.42, 0.6), (0.5, 0.12, 0.5))),
    _thing("snowman", "snowman", body=Body((0.5, 0.36, 0.36), None, (0.1, 0.56, 0.42))),
    _thing("ghost", "ghost", "spook", body=Body((0.5, 0.34, 0.56), (0.5, 0.07, 0.42), (0.1, 0.5, 0.42))),
    _thing("jack-o-lantern", "pumpkin", "jack-o-lantern"),
    _thing("teddy-bear", "teddy bear", "teddy", body=Body((0.5, 0.24, 0.44), (0.5, 0.06, 0.4), (0.14, 0.52, 0.42))),
    _thing("alien", "alien", "extraterrestrial", colour="green", body=Body(head=(0.5, 0.1, 0.5))),
    _thing("skull", "skull", body=_face(0.46, 0.1)),
    _thing("red-heart", "heart", "red heart", colour="red"),
    _thing("wrapped-gift", "gift", "present", "wrapped gift", colour="yellow"),
    _thing("guitar", "guitar", "electric guitar", colour="red"),
    _thing("trumpet"),
    _thing("drum"),
    _thing("camera", "camera", "photo camera"),
    _thing("television", "television", "tv", "tv set"),
    _thing("telephone", "telephone", "phone", colour="red"),
    _thing("alarm-clock", "alarm clock", "clock", colour="red"),
    _thing("old-key", "key", "old key", colour="yellow"),
    _thing("light-bulb", "light bulb", "bulb", "lamp"),
    _thing("closed-book", "book", "closed book", colour="red"),
    _thing("pencil", colour="orange"),
    _thing("scissors", "scissors", "pair of scissors", counts=False),
    _thing("hammer"),
    _thing("bell", colour="yellow"),
    _thing("trophy", "trophy", "cup"),
    _thing("backpack", "backpack", "rucksack", colour="red"),
    _thing("handbag", "handbag", "purse", colour="orange"),
    _thing("t-shirt", "t-shirt", "shirt", "tshirt", colour="green"),
    _thing("dress", "dress", "gown", colour="blue"),
    _thing("jeans", "jeans", "trousers", "pants", colour="blue", counts=False),
    _thing("running-shoe", "shoe", "running shoe", "sneaker"),
    _thing("chair", colour="orange"),
    _thing("globe-showing-europe-africa", "globe", "earth", "world"),
    _thing("gem-stone", "diamond", "gem", "gemstone", "jewel", colour="blue"),
    _thing("bomb"),
)  # fmt: skip

THINGS: tuple[Thing, ...] = (*_ANIMALS, *_FOOD, *_NATURE, *_PLACES_AND_VEHICLES, *_OBJECTS)

BY_ICON = {thing.icon: thing for thing in THINGS}


@dataclass(frozen=True, slots=True)
class Accessory:
    """Something that a thing with a body wears or holds."""

    icon: str
    #: Where on the body it goes, a field of `Body`.
    place: str
    #: What captions call it, article included.
    wordings: tuple[str, ...]
    #: The point of the accessory's square that lies on the body's spot.
    grip: tuple[float, float]


ACCESSORIES: tuple[Accessory, ...] = (
    Accessory("sunglasses", "eyes", ("sunglasses", "a pair of sunglasses", "shades"), (0.5, 0.5)),
    Accessory("top-hat", "head", ("a top hat", "a hat"), (0.5, 0.86)),
    Accessory("crown", "head", ("a crown",), (0.5, 0.86)),
    Accessory("balloon", "hand", ("a balloon", "a red balloon"), (0.35, 0.95)),
    Accessory("tulip", "hand", ("a tulip", "a flower"), (0.5, 0.9)),
    Accessory("lollipop", "hand", ("a lollipop",), (0.9, 0.92)),
)

BY_ACCESSORY = {accessory.icon: accessory for accessory in ACCESSORIES}

_IRREGULAR = {"mouse": "mice", "fish": "fish", "leaf": "leaves", "loaf": "loaves", "cactus": "cacti",
              "jellyfish": "jellyfish", "snowman": "snowmen", "tomato": "tomatoes"}  # fmt: skip


def article(wording: str) -> str:
    """Return "an" before a vowel that is spoken as one, and "a" before all else."""
    return "an" if wording[0] in "aeiou" and not wording.startswith(("uni", "ufo")) else "a"


def plural(wording: str) -> str:
    """Return a wording for more than one: "slice of pizza" -> "slices of pizza"."""
    head, of, rest = wording.partition(" of ")
    before, space, noun = head.rpartition(" ")
    if noun in _IRREGULAR:
        many = _IRREGULAR[noun]
    elif noun.endswith(("s", "x", "ch", "sh")):
        many = noun + "es"
    elif noun.endswith("y") and noun[-2] not in "aeiou":
        many = noun[:-1] + "ies"
    else:
        many = noun + "s"
    return before + space + many + of + rest
